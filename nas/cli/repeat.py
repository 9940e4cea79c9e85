"""`querynas repeat`: candidates of a study trained again with other seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import TrustImports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.statistics.repeats import Repeated


def repeat(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    trials: Annotated[str | None, typer.Option(help="Trials to repeat, e.g. 80,84.")] = None,
    front: Annotated[bool, typer.Option("--front", help="Repeat the whole front.")] = False,
    seeds: Annotated[
        int, typer.Option(min=2, max=1000, help="Seeds to reach for each of them.")
    ] = 3,
    trust_imports: TrustImports = False,
) -> None:
    """Train candidates again with other seeds: how much of their accuracy is luck."""
    from nas.errors import StudyError
    from nas.statistics.repeats import repeat as run_repeat
    from nas.study.run import Run

    if front == (trials is not None):
        raise StudyError("Give either --trials, e.g. --trials 80,84, or --front.")
    opened = Run.open(run, trust_imports=trust_imports)
    records = opened.front() if trials is None else [opened.record(n) for n in _numbers(trials)]
    try:
        _print(run_repeat(opened, records, seeds=seeds))
    except KeyboardInterrupt:
        print(
            "\nquerynas: stopped; what was trained is kept, the same command goes on from there.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    print(f"Stored in {opened.path / 'repeats.json'}; `querynas report {run}` shows them.")


def _numbers(text: str) -> list[int]:
    """The trials in "80,84", each once."""
    from nas.errors import StudyError

    try:
        return list(dict.fromkeys(int(number) for number in text.split(",")))
    except ValueError as error:
        raise StudyError(
            f"'{text}' is no list of trials; give numbers between commas, e.g. --trials 80,84."
        ) from error


def _print(done: Sequence[Repeated]) -> None:
    """One row per candidate, then what the figures stand for."""
    from rich.table import Table

    from nas.cli.tables import stdout_console
    from nas.config.budget import format_macs

    table = Table(title="mAP over training seeds", title_justify="left")
    for name, justify in _COLUMNS:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for each in done:
        record = each.record
        table.add_row(
            str(record.trial),
            record.route,
            format_macs(record.macs),
            record.fidelity,
            f"{record.accuracy:.4f}",
            each.how,
            str(each.seeds),
            str(each.val),
            str(each.test),
        )
    console = stdout_console()
    console.print(table)
    console.print("± is half of the 95% t-interval over seeds, on the same queries.")
    if any(each.inherits for each in done):
        console.print(
            "What was cut started from the backbone that the study aligned once, so the luck of "
            "that backbone is not in its interval."
        )


_COLUMNS = (
    ("trial", "right"),
    ("space", "left"),
    ("MACs", "right"),
    ("weights", "left"),
    ("val", "right"),
    ("trained again", "left"),
    ("seeds", "right"),
    ("val, over seeds", "right"),
    ("test, over seeds", "right"),
)
