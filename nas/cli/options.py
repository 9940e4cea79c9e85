"""Options that several commands share."""

from typing import Annotated

import typer

from searchspaces.support.section import MOST_SIDE

TrustImports = Annotated[
    bool,
    typer.Option(
        "--trust-imports",
        help="Run the modules that the study of this folder imports; remembered for their source.",
    ),
]
Val = Annotated[float, typer.Option(min=0, max=1, help="Share of classes held out for validation.")]
Test = Annotated[float, typer.Option(min=0, max=1, help="Share of classes held out for the test.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Of weights, of the split and of all draws.")
]
Epochs = Annotated[int, typer.Option(min=1, max=100_000, help="Passes over the training images.")]
Size = Annotated[
    int, typer.Option(min=16, max=MOST_SIDE, help="Side of the square input in pixels.")
]
