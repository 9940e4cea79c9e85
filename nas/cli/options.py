"""Options that several commands share."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from nas.errors import StudyError
from searchspaces.support.section import MOST_SIDE

TrustImports = Annotated[
    bool,
    typer.Option(
        "--trust-imports",
        help="Run the modules that the study of this folder imports; remembered for their source.",
    ),
]
Val = Annotated[
    float, typer.Option(min=0, max=1, help="Share of classes (or images) held out for validation.")
]
Test = Annotated[
    float, typer.Option(min=0, max=1, help="Share of classes (or images) held out for the test.")
]


By = Annotated[
    Literal["class", "image"] | None,
    typer.Option(
        help="Hold out whole classes, or single images that search all others; by default classes "
        "where there are labels."
    ),
]
Unlabelled = Annotated[
    list[str],
    typer.Option(
        help="Further training images, '{data: photos, gallery: DIR}' or '{data: photos, model: "
        "SPEC}'; may be given several times."
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Of weights, of the split and of all draws.")
]
Epochs = Annotated[int, typer.Option(min=1, max=100_000, help="Passes over the training images.")]
Resolution = Annotated[
    int, typer.Option(min=16, max=MOST_SIDE, help="Side of the square input in pixels.")
]

_RENAMED = {"--arch": "--backbone", "--size": "--resolution"}


class RenamedOptions(TyperCommand):
    """A command that takes its options under the names too that they had once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments with the old names replaced.

        Raises:
            StudyError: An option is there under both names.
        """
        parts = [each.partition("=") for each in args]
        given = {name for name, _, _ in parts}
        for old, new in _RENAMED.items():
            if {old, new} <= given:
                raise StudyError(f"{old} is the old name of {new}, and both are there; keep {new}.")
        renamed = [_RENAMED.get(name, name) + equals + value for name, equals, value in parts]
        return super().parse_args(ctx, renamed)
