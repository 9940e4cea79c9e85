"""`querynas adapt`: a frozen encoder into a gallery, without training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.options import By, Seed, Test, Unlabelled, Val

if TYPE_CHECKING:
    from nas.recipes.adapting import Adapted


class Map(StrEnum):
    """What leads from features into the gallery space."""

    auto = "auto"
    ridge = "ridge"
    procrustes = "procrustes"
    low_rank = "low-rank"
    mlp = "mlp"


def adapt(
    model: Annotated[
        str,
        typer.Argument(help="timm name, saved query model, ONNX encoder or module:function."),
    ],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")],
    data: Annotated[str, typer.Option(help="Data set, whose images have vectors in the gallery.")],
    resolution: Annotated[
        str | None, typer.Option(help="Sides of the input, as 48,64,96; its own by default.")
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Numbers of first levels of a timm model, as 3,4,6: it ends after so many, and "
            "features are the pooled maps of them all."
        ),
    ] = None,
    map: Annotated[Map, typer.Option(help="The map; auto tries all.")] = Map.auto,
    pretrained: Annotated[bool, typer.Option(help="Take a timm model's published weights.")] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File with a timm model's weights instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, .onnx, .safetensors or .pt2.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    val: Val = 0.15,
    test: Test = 0.25,
    by: By = None,
    unlabelled: Unlabelled = [],  # noqa: B006
    seed: Seed = 0,
) -> None:
    """Map a frozen encoder into a gallery, without training; the map is chosen on validation."""
    from nas.cli.settings import settings, unlabelled_of
    from nas.recipes.adapting import AdaptConfig
    from nas.recipes.adapting import adapt as run_adapt

    config = settings(
        AdaptConfig,
        {
            "model": model,
            "gallery": str(gallery),
            "data": data,
            "resolutions": _numbers("--resolution", resolution, "sides in pixels", "48,64,96"),
            "levels": _numbers("--levels", levels, "numbers of levels", "3,4,6"),
            "map": map.value,
            "pretrained": pretrained,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "split": {"val": val, "test": test, "seed": seed, "by": by},
            "unlabelled": unlabelled_of(unlabelled),
            "seed": seed,
        },
    )
    done = run_adapt(config, out)
    if json:
        import json as json_module

        print(json_module.dumps(_rows(done), indent=2))
    else:
        _print(done)


def _numbers(option: str, text: str | None, what: str, example: str) -> tuple[int, ...]:
    """Read an option that lists numbers; none where it is not given.

    Raises:
        StudyError: It is no list of different numbers.
    """
    from nas.errors import StudyError

    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len({*parts}) < len(parts):
        raise StudyError(
            f"{option} is '{text}': give different {what} with commas between, as {example}."
        )
    return tuple(int(part) for part in parts)


def _rows(done: Adapted) -> dict[str, Any]:
    """An adaptation as plain JSON-able values."""
    return {
        "rows": [
            {
                "resolution": row.encoder.resolution,
                "levels": row.encoder.levels,
                "map": row.map.name,
                "macs": row.macs,
                "val_cross_test": row.map.found.map,
                "val_interval_low": row.map.found.interval[0],
                "val_interval_high": row.map.found.interval[1],
                "val_paragon": done.paragon,
                "chosen": row is done.chosen,
            }
            for row in done.rows
        ],
        "test": done.scores.model_dump(mode="json"),
        "judge": done.data.judge,
        "file": None if done.exported is None else str(done.exported.path),
    }


def _print(done: Adapted) -> None:
    """One row per encoder and map, then the test classes and where the file is."""
    from rich.table import Table

    from nas.cli.tables import stdout_console
    from nas.config.budget import format_macs
    from nas.config.objectives import ACCURACY

    accuracy, unseen = ACCURACY[done.data.judge].words, done.data.unseen
    title = f"Adapted without training, on the validation {unseen}"
    table = Table(title=title, title_justify="left")
    levelled = any(row.encoder.levels is not None for row in done.rows)
    ends = ["levels"] if levelled else []
    for column in ("px", *ends, "map", "MACs", accuracy, "95% interval", "of paragon", ""):
        table.add_column(column, justify="left" if column == "map" else "right", no_wrap=True)
    for row in done.rows:
        found = row.map.found
        low, high = found.interval
        lift = row.map.projection.description["lift"]
        table.add_row(
            str(row.encoder.resolution),
            *([str(row.encoder.levels)] if levelled else []),
            row.map.name if lift is None else f"{row.map.name} ({lift['width']})",
            format_macs(row.macs),
            f"{found.map:.4f}",
            f"{low:.3f}–{high:.3f}",
            f"{found.map / done.paragon:.1%}",
            "chosen" if row is done.chosen else "",
        )
    console = stdout_console()
    console.print(table)
    cross, paragon = done.scores.cross_test, done.scores.paragon.map
    low, high = cross.interval
    console.print(
        f"Test {unseen}: {accuracy} mAP {cross.map:.4f} (95% interval {low:.3f} to {high:.3f}), "
        f"{cross.map / paragon:.1%} of the paragon {paragon:.4f}"
    )
    if done.exported is None:
        console.print("Nothing was written; --out FILE writes the chosen one.")
    else:
        written = done.exported
        console.print(f"{written.path}, card {written.card_path.name}", soft_wrap=True)
