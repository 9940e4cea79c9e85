"""The `querynas` command: a thin shell over the Python API, one small file per command."""

import logging
import os
import sys
import warnings
from typing import NoReturn

import typer

from nas.cli import (
    adapt,
    compare,
    evaluate,
    export,
    gallery,
    latency,
    nest,
    pareto,
    profile,
    prune,
    repeat,
    report,
    search,
)
from searchspaces.support.errors import QuerynasError, reason

__all__ = ["app", "main"]

app = typer.Typer(
    name="querynas",
    help="Find the smallest query model whose embeddings still land in your gallery space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(gallery.app, name="gallery")
app.add_typer(nest.app, name="nest")
app.add_typer(latency.app, name="latency")
for command in (
    search.search,
    prune.prune,
    adapt.adapt,
    pareto.pareto,
    export.export,
    evaluate.evaluate,
    compare.compare,
    profile.profile,
    report.report,
    repeat.repeat,
):
    app.command()(command)


def main() -> None:
    """Run the command; say what is wrong in one sentence and exit with 2 instead of a traceback."""
    logging.basicConfig(format="querynas: %(message)s", level=logging.WARNING)
    logging.getLogger("querynas").setLevel(logging.INFO)
    for category in (FutureWarning, DeprecationWarning):  # of the libraries, for their callers
        warnings.simplefilter("ignore", category)
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    warnings.filterwarnings("ignore", message=".*experimental")
    os.environ["PYTHONSAFEPATH"] = "1"  # no worker process looks for modules in the current folder
    try:
        app()
    except Exception as error:
        if isinstance(error, QuerynasError):
            _refuse(str(error))
        if _disk_is_full(error):
            _refuse("the disk is full; free space and run the same command again, nothing is lost.")
        if isinstance(error, OSError) and error.filename is not None:
            found = f"'{error.filename}' cannot be read or written ({reason(error)})"
            _refuse(str(QuerynasError(f"{found}; check the path and its permissions.")))
        raise


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether ``error``, or what caused it, is a full disk; each library says it in its own way."""
    while error is not None:
        words = str(error).lower()
        if "no space left" in words or "disk is full" in words:
            return True
        error = error.__cause__ or error.__context__
    return False


def _refuse(sentence: str) -> NoReturn:
    print(f"querynas: {sentence}", file=sys.stderr)
    sys.exit(2)
