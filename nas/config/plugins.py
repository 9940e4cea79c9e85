"""A user's own modules: what registers losses, search spaces and predictors under names."""

import importlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from nas.errors import StudyError

logger = logging.getLogger("querynas")


def import_modules(names: Iterable[str], *, needed: bool = True) -> None:
    """Import modules by name, from the current folder too; what they register is then known.

    Args:
        names: Dotted names. Only name modules you trust: importing runs them.
        needed: Whether a module that cannot be imported is an error or just a warning.

    Raises:
        StudyError: A needed module is missing or fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module raises while it is imported
            sentence = (
                f"The module '{name}' of the field 'imports' cannot be imported "
                f"({type(error).__name__}: {error}); run in the folder that holds it, or install it"
            )
            if needed:
                raise StudyError(f"{sentence}.") from error
            logger.warning("%s. Names that it registers are unknown here.", sentence)
