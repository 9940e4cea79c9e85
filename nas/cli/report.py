"""`querynas report`: one self-contained HTML page about a study."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import TrustImports


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    trust_imports: TrustImports = False,
) -> None:
    """Write report.html into the run folder."""
    from nas.reporting.page import report as write
    from nas.study.run import Run

    print(f"Report: {write(Run.open(run, trust_imports=trust_imports))}")
