"""`querynas nest`: one set of weights, many capacities."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nas.cli.options import By, RenamedOptions, Seed, Test, Unlabelled, Val
from nas.cli.prune import Criterion

if TYPE_CHECKING:
    from rich.table import Table

    from nas.recipes.nest import Nest
    from nas.reporting.cross_matrix import CrossTests


class _TrainByDefault(TyperGroup):
    """`nest MODEL` means `nest train MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["train", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_TrainByDefault,
    help="Train one query model for many capacities; extract the one that a device can afford. "
    "`nest MODEL` is short for `nest train MODEL`.",
    no_args_is_help=True,
)


class Way(StrEnum):
    """How subnetworks are formed."""

    structured = "structured"
    masks = "masks"
    switchable = "switchable"


class Rule(StrEnum):
    """How the gradients of the capacities become one."""

    integrated = "integrated"
    pcgrad = "pcgrad"
    sum = "sum"


@app.command(cls=RenamedOptions)
def train(
    model: Annotated[str, typer.Argument(help="timm name or a saved query model, .safetensors.")],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")],
    data: Annotated[str, typer.Option(help="Data set, whose images have vectors in the gallery.")],
    out: Annotated[Path, typer.Option(help="Folder; a begun one is continued.")],
    method: Annotated[Way, typer.Option(help="How subnetworks are formed.")] = Way.structured,
    capacities: Annotated[str, typer.Option(help="Percent, 100 among them.")] = "20,40,60,80,100",
    per_step: Annotated[
        int | None,
        typer.Option(min=2, help="Capacities a step trains: the ends and random ones."),
    ] = None,
    gradients: Annotated[
        Rule | None, typer.Option(help="How gradients become one; by default as the method does.")
    ] = None,
    order: Annotated[
        Criterion, typer.Option(help="Criterion by which channels are ordered.")
    ] = Criterion.taylor,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Compatibility loss: a name, or weights as {ssp: 1, csd: 1}; by default of csd."
        ),
    ] = None,
    pairwise: Annotated[
        float, typer.Option(min=0, help="Weight of 1 - cosine to the larger capacities.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs.")] = 20,
    batch: Annotated[int, typer.Option(min=2, help="Images per step.")] = 128,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; by default as in study files.")
    ] = None,
    resolution: Annotated[int, typer.Option(min=8, help="Input of a timm model, pixels.")] = 64,
    levels: Annotated[
        int | None,
        typer.Option(min=1, help="End a timm model after so many levels, and read them all."),
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Start a timm model from its weights.")] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File with a timm model's weights instead.")
    ] = None,
    val: Val = 0.15,
    test: Test = 0.25,
    by: By = None,
    unlabelled: Unlabelled = [],  # noqa: B006
    seed: Seed = 0,
) -> None:
    """Train (or continue), then test every capacity against every other on the test classes."""
    from nas.cli.settings import loss_of, settings, unlabelled_of
    from nas.recipes import Nest, NestConfig
    from pruning.nested import parse_capacity

    config = settings(
        NestConfig,
        {
            "model": model,
            "gallery": str(gallery),
            "data": data,
            "method": method.value,
            "gradients": None if gradients is None else gradients.value,
            "capacities": tuple(parse_capacity(each) for each in capacities.split(",")),
            "per_step": per_step,
            "order": order.value,
            "pairwise": pairwise,
            "resolution": resolution,
            "levels": levels,
            "pretrained": pretrained,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "training": {
                "epochs": epochs,
                "batch": batch,
                **({} if lr is None else {"lr": lr}),
            },
            "split": {"val": val, "test": test, "seed": seed, "by": by},
            "unlabelled": unlabelled_of(unlabelled),
            "seed": seed,
            **({} if loss is None else {"loss": loss_of(loss)}),
        },
    )
    nest = Nest.create(out, config)
    try:
        _print(nest, nest.train())
    except KeyboardInterrupt:
        print(
            "\nquerynas: stopped; the same command goes on behind the last validation.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


@app.command()
def extract(
    nest: Annotated[Path, typer.Argument(help="Folder of a trained nest.")],
    capacity: Annotated[str, typer.Option(help="Percent, e.g. 37%; it need not be a trained one.")],
    out: Annotated[
        Path, typer.Option(help="File to write, .safetensors, .onnx or .pt2; its card goes beside.")
    ],
) -> None:
    """Write one capacity as an ordinary query model, with its scores on the test classes."""
    from nas.config.budget import format_macs
    from nas.config.objectives import ACCURACY
    from nas.recipes.nest import Nest
    from pruning.nested import format_capacity, parse_capacity

    share = parse_capacity(capacity)
    opened = Nest.open(nest)
    done = opened.write(share, out)
    seconds, score = done.card.latency, done.card.scores.cross_test
    latency = f"{(seconds.pytorch or 0) * 1e3:.2f} ms in PyTorch"
    if seconds.onnxruntime is not None:
        latency += f", {seconds.onnxruntime * 1e3:.2f} ms in ONNX Runtime"
    macs = format_macs(done.card.macs)
    print(f"Wrote {format_capacity(share)} of {nest} ({macs} MACs) to {done.path}")
    print(f"Card: {done.card_path}")
    print(f"Largest difference from PyTorch: {done.max_difference:.2e}")
    print(f"Latency of one query, one CPU thread: {latency}")
    low, high = score.interval
    words = f"Test {opened.data.unseen}: {ACCURACY[done.card.judge].words} mAP {score.map:.4f}"
    print(f"{words} (95% interval {low:.3f} to {high:.3f})")
    config = opened.config
    if share not in config.capacities and config.per_step is None:
        print(
            f"{format_capacity(share)} was not trained, only adapted; a nest trained with "
            "--per-step 4 is better between its capacities."
        )
    if done.collapsed is not None:
        print(f"It has collapsed: {done.collapsed}; take a larger capacity, or train for longer.")


def _print(nest: Nest, tests: CrossTests) -> None:
    """What the capacities cost, and how they search one another."""
    from nas.cli.tables import stdout_console

    console = stdout_console()
    console.print(_costs(nest))
    console.print("Latency of one query in PyTorch, one CPU thread.")
    if nest.config.method == "masks":
        console.print("Masks leave zeros in full-size layers: they save no work and no space.")
    console.print(_matrix(nest, tests))
    console.print(f"Plot: {nest.path / 'cross_tests.html'}", soft_wrap=True)


def _costs(nest: Nest) -> Table:
    from rich.table import Table

    from nas.config.budget import format_macs
    from pruning import figure
    from pruning.nested import format_capacity

    table = Table(title=f"Capacities of {nest.path}", title_justify="left")
    for name in ("capacity", "channels", "params", "MACs", "of 100%", "latency", "of 100%"):
        table.add_column(name, justify="right")
    dense: tuple[float, float] | None = None
    for capacity in nest.model.capacities:  # the dense network first
        model = nest.model.extract(capacity)
        macs, latency = figure(model, "macs"), figure(model, "latency")
        dense = dense or (macs, latency)
        table.add_row(
            format_capacity(capacity),
            f"{nest.model.width(capacity):.0%}",
            format_macs(figure(model, "parameters")),
            format_macs(macs),
            f"{macs / dense[0]:.3f}",
            f"{latency * 1e3:.2f} ms",
            f"{latency / dense[1]:.3f}",
        )
    return table


def _matrix(nest: Nest, tests: CrossTests) -> Table:
    from rich.table import Table

    table = Table(
        title=f"Cross-tests of {nest.path} on the test {nest.data.unseen}: mAP by query (row) and "
        "gallery",
        title_justify="left",
    )
    table.add_column("queries by")
    for name in tests.names:
        table.add_column(name, justify="right")
    for name, maps in zip(tests.names, tests.maps, strict=True):
        table.add_row(name, *(f"{value:.4f}" for value in maps))
    return table
