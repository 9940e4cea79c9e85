"""`querynas prune`: one model cut down to a target, still in the gallery's space."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import By, Seed, Test, Unlabelled, Val

if TYPE_CHECKING:
    from nas.recipes.prune_run import Pruned


class Criterion(StrEnum):
    """Which channels go first."""

    taylor = "taylor"
    fisher = "fisher"
    magnitude = "magnitude"
    bn_scale = "bn_scale"
    lamp = "lamp"
    fpgm = "fpgm"
    random = "random"


class Scope(StrEnum):
    """Among which channels the least important ones are looked for."""

    everywhere = "global"
    local = "local"
    isomorphic = "isomorphic"


class Schedule(StrEnum):
    """In which order the model is cut and trained."""

    iterative = "iterative"
    one_shot = "one_shot"
    growing = "growing"


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from pruning import SUPPORTED

    width = max(map(len, SUPPORTED))
    for family, model in sorted(SUPPORTED.items(), key=lambda item: item[0].lower()):
        print(f"{family:<{width}}  {model}")
    print("Others may work too: what cannot be cut is refused before anything is trained.")
    raise typer.Exit


def prune(
    model: Annotated[str, typer.Argument(help="timm name, or a saved query model, .safetensors.")],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")],
    data: Annotated[str, typer.Option(help="Data set, whose images have vectors in the gallery.")],
    target: Annotated[str, typer.Option(help="0.25x (of the MACs), 50M (MACs), 2Mparams or 5ms.")],
    out: Annotated[Path, typer.Option(help="Run folder; a begun one is continued.")],
    criterion: Annotated[
        Criterion, typer.Option(help="Which channels go first; taylor and fisher ask the loss.")
    ] = Criterion.taylor,
    scope: Annotated[
        Scope, typer.Option(help="Among which channels the least important are looked for.")
    ] = Scope.everywhere,
    schedule: Annotated[Schedule, typer.Option(help="When to cut.")] = Schedule.iterative,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of cutting and re-aligning.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of re-alignment in a round.")] = 2,
    align_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of the uncut model's alignment to the gallery.")
    ] = 20,
    finish_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of the pruned model's alignment in the end.")
    ] = 10,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Compatibility loss: a name, or weights as {ssp: 1, csd: 1}; by default of csd."
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=8, help="Side of a timm model's input; its own by default.")
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option(min=1, help="End a timm model after so many levels, and read them all."),
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Start a timm model from its weights.")] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File with a timm model's weights instead.")
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="Images per training step.")] = 128,
    round_to: Annotated[int, typer.Option(min=1, help="Widths are multiples of this.")] = 8,
    val: Val = 0.15,
    test: Test = 0.25,
    by: By = None,
    unlabelled: Unlabelled = [],  # noqa: B006
    seed: Seed = 0,
    list: Annotated[
        bool,
        typer.Option(
            "--list", callback=_list, is_eager=True, help="Print the families known to work."
        ),
    ] = False,
) -> None:
    """Align a model to a gallery and cut it down to a target; continues a stopped pruning."""
    from nas.cli.settings import loss_of, settings, unlabelled_of
    from nas.recipes.prune_run import prune as run_prune
    from nas.recipes.prune_settings import PruneConfig

    config = settings(
        PruneConfig,
        {
            "model": model,
            "gallery": str(gallery),
            "data": data,
            "target": target,
            "criterion": criterion.value,
            "scope": scope.value,
            "schedule": schedule.value,
            "rounds": rounds,
            "round_to": round_to,
            "resolution": resolution,
            "levels": levels,
            "pretrained": pretrained,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "align": {"epochs": align_epochs, "batch": batch} if align_epochs else None,
            "realign": {"epochs": epochs, "batch": batch},
            "finish": {"epochs": finish_epochs, "batch": batch} if finish_epochs else None,
            "split": {"val": val, "test": test, "seed": seed, "by": by},
            "unlabelled": unlabelled_of(unlabelled),
            "seed": seed,
            **({} if loss is None else {"loss": loss_of(loss)}),
        },
    )
    try:
        _print(run_prune(config, out))
    except KeyboardInterrupt:
        print(
            "\nquerynas: stopped; finished steps are kept, the same command goes on from there.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def _print(done: Pruned) -> None:
    """One row per step, then the test classes and where the files are."""
    from rich.table import Table

    from nas.cli.tables import stdout_console
    from nas.config.budget import format_macs
    from nas.config.objectives import ACCURACY
    from nas.deployment.write import onnx_seconds

    table = Table(title=f"{done.run.path}, target {done.target}", title_justify="left")
    accuracy, unseen = ACCURACY[done.run.data.judge].words, done.run.data.unseen
    for column in (*_COLUMNS, accuracy, "interval"):
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    uncut, console = done.steps[0], stdout_console()
    for record in done.steps:
        low, high = record.interval
        table.add_row(
            record.fidelity,
            format_macs(record.macs),
            f"{record.macs / uncut.macs:.3f}",
            format_macs(record.parameters),
            f"{record.costs['latency'] * 1e3:.2f} ms",
            f"{record.costs['latency'] / uncut.costs['latency']:.3f}",
            f"{record.accuracy:.4f}",
            f"{low:.3f}–{high:.3f}",
        )
    console.print(table)
    console.print(
        f"{accuracy.capitalize()} on the validation {unseen}; latency in PyTorch, one CPU thread."
    )
    last = done.files[-1].card
    for name, scores in (("uncut", done.uncut.scores), ("pruned", last.scores)):
        cross, paragon = scores.cross_test, scores.paragon.map
        low, high = cross.interval
        console.print(
            f"Test {unseen}, {name}: {accuracy} mAP {cross.map:.4f} (95% interval {low:.3f} to "
            f"{high:.3f}), {cross.map / paragon:.1%} of the paragon {paragon:.4f}"
        )
    before = onnx_seconds(done.run.model(uncut), "the uncut model")
    after = last.latency.onnxruntime or 0
    console.print(
        f"Pruned to {last.macs / uncut.macs:.3f} of the MACs and {after / before:.3f} of the "
        f"latency in ONNX Runtime: {after * 1e3:.2f} ms instead of {before * 1e3:.2f} ms for one "
        "query, one CPU thread"
    )
    if done.untrained is not None:
        rival = done.untrained
        console.print(
            f"On the validation {unseen} its {accuracy} {done.steps[-1].accuracy:.4f} is below "
            f"the {rival.map.found.map:.4f} of the uncut network at {rival.encoder.resolution} px "
            f"without any training, which has {format_macs(rival.macs)} MACs: see `querynas adapt`",
            soft_wrap=True,
        )
    for file in done.files:
        console.print(f"{file.path}, card {file.card_path.name}", soft_wrap=True)


_COLUMNS = ("step", "MACs", "of uncut", "params", "latency", "of uncut")
