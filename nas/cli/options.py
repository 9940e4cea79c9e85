"""Options that several commands share."""

from typing import Annotated

import typer

TrustImports = Annotated[
    bool,
    typer.Option(
        "--trust-imports",
        help="Run the modules that the study of this folder imports; remembered for their source.",
    ),
]
