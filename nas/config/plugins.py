"""A user's own modules: what registers losses, search spaces and predictors under names."""

import logging
from collections.abc import Iterable
from pathlib import Path

from nas.errors import StudyError
from searchspaces.support.cache import default_cache
from searchspaces.support.modules import import_module, module_digest

logger = logging.getLogger("querynas")


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that a study file of the user's names, and trust them from now on.

    Args:
        names: Dotted names: files or packages of the current folder, or installed modules.

    Raises:
        StudyError: A module is missing or fails.
    """
    for name in names:
        try:
            _run(name, module_digest(name))
        except Exception as error:  # whatever a user's module raises while it is imported
            raise StudyError(f"{_failure(name, error)}.") from error


def import_trusted(names: Iterable[str], run: Path, *, trust: bool) -> None:
    """Import the modules that a run folder names, which may be somebody else's.

    One that is missing or fails is only warned of.

    Args:
        names: Dotted names, as for `import_modules`.
        run: The run folder.
        trust: Whether the user trusts them; what was trusted before, with the same source, is
            imported anyway.

    Raises:
        StudyError: A module is not trusted.
    """
    for name in names:
        try:
            digest = module_digest(name)
            if trust or _mark(digest).exists():
                _run(name, digest)
                continue
        except Exception as error:  # as above
            logger.warning("%s. Names that it registers are unknown here.", _failure(name, error))
            continue
        raise StudyError(
            f"The run '{run}' imports the module '{name}', which runs code that you have not "
            f"trusted yet; read it, then give `querynas pareto {run} --trust-imports` once."
        )


def _run(name: str, digest: str) -> None:
    import_module(name)
    _mark(digest).parent.mkdir(parents=True, exist_ok=True)
    _mark(digest).touch()


def _mark(digest: str) -> Path:
    """The empty file that says that source with this hash is trusted."""
    return default_cache() / "trusted" / digest


def _failure(name: str, error: Exception) -> str:
    return (
        f"The module '{name}' of the field 'imports' cannot be imported "
        f"({type(error).__name__}: {error}); run in the folder that holds it, or install it"
    )
