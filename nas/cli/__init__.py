"""The `querynas` command: a thin shell over the Python API, one small file per command."""

import errno
import logging
import sys
import warnings
from typing import NoReturn

import typer

from nas.cli import evaluate, export, gallery, pareto, profile, report, search

app = typer.Typer(
    name="querynas",
    help="Find the smallest query model whose embeddings still land in your gallery space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(gallery.app, name="gallery")
for command in (
    search.search,
    pareto.pareto,
    export.export,
    evaluate.evaluate,
    profile.profile,
    report.report,
):
    app.command()(command)

_OURS = ("CompatError", "SearchSpaceError", "PruningError", "StudyError")


def main() -> None:
    """Run the command; say what is wrong in one sentence and exit with 2 instead of a traceback."""
    logging.basicConfig(format="querynas: %(message)s", level=logging.WARNING)
    logging.getLogger("querynas").setLevel(logging.INFO)
    for category in (FutureWarning, DeprecationWarning):  # of the libraries, for their callers
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", message=".*experimental")
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _refuse("the disk is full; free space and run the same command again, nothing is lost.")
    except ValueError as error:
        # The four packages each have one error for users; their modules are not imported here,
        # so that `--help` stays quick.
        if type(error).__name__ not in _OURS:
            raise
        _refuse(str(error))


def _refuse(sentence: str) -> NoReturn:
    print(f"querynas: {sentence}", file=sys.stderr)
    sys.exit(2)
