"""`querynas nest`: one set of weights, many capacities."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from nas.cross_tests import CrossTests
    from nas.nesting import Nest


class _TrainByDefault(TyperGroup):
    """`nest MODEL` means `nest train MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["train", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_TrainByDefault,
    help="Train one query model for many capacities; extract the one that a device can afford.",
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


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="timm:NAME or a saved query model, .safetensors.")],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")],
    data: Annotated[str, typer.Option(help="Data set, whose images have vectors in the gallery.")],
    out: Annotated[Path, typer.Option(help="Folder; a begun one is continued.")],
    method: Annotated[Way, typer.Option(help="How subnetworks are formed.")] = Way.structured,
    capacities: Annotated[str, typer.Option(help="Percent, 100 among them.")] = "20,40,60,80,100",
    gradients: Annotated[
        Rule | None, typer.Option(help="How gradients become one; by default as the method does.")
    ] = None,
    order: Annotated[str, typer.Option(help="Criterion by which channels are ordered.")] = "taylor",
    loss: Annotated[str, typer.Option(help="Loss towards the gallery vectors.")] = "regression",
    pairwise: Annotated[
        float, typer.Option(min=0, help="Weight of 1 - cosine to the larger capacities.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs.")] = 20,
    batch: Annotated[int, typer.Option(min=2, help="Images per step.")] = 128,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    size: Annotated[int, typer.Option(min=8, help="Input of a timm model, pixels.")] = 64,
    pretrained: Annotated[bool, typer.Option(help="Start a timm model from its weights.")] = True,
    val: Annotated[float, typer.Option(help="Share of validation classes.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of test classes.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Of weights, scores and order.")] = 0,
) -> None:
    """Train (or continue), then test every capacity against every other on the test classes."""
    from nas.config import SplitConfig, TrainingConfig
    from nas.nesting import Nest, NestConfig
    from pruning.nested import parse_capacity

    config = NestConfig(
        model=model,
        gallery=str(gallery),
        data=data,
        method=method.value,
        gradients=None if gradients is None else gradients.value,
        capacities=tuple(parse_capacity(each) for each in capacities.split(",")),
        order=order,
        loss=loss,
        pairwise=pairwise,
        size=size,
        pretrained=pretrained,
        training=TrainingConfig(epochs=epochs, batch=batch, lr=lr),
        split=SplitConfig(val=val, test=test),
        seed=seed,
    )
    nest = Nest.create(out, config)
    _print(nest, nest.train())


@app.command()
def extract(
    nest: Annotated[Path, typer.Argument(help="Folder of a trained nest.")],
    capacity: Annotated[str, typer.Option(help="Percent, e.g. 37%; it need not be a trained one.")],
    out: Annotated[Path, typer.Option(help="File to write, .safetensors; its card goes beside.")],
) -> None:
    """Write one capacity as an ordinary query model, with its scores on the test classes."""
    from nas.budget import format_macs
    from nas.nesting import Nest
    from pruning.nested import parse_capacity

    card = Nest.open(nest).write(parse_capacity(capacity), out)
    print(f"Wrote {capacity} of {nest} ({format_macs(card.macs)} MACs) to {out}")
    print(f"Test classes: cross-test mAP {card.scores.cross_test.map:.4f}")


def _print(nest: Nest, tests: CrossTests) -> None:
    from rich.table import Table

    from nas.budget import format_macs
    from nas.cli.tables import stdout_console
    from searchspaces import count_macs, count_parameters

    table = Table(
        title=f"Cross-tests of {nest.path} on the test classes: mAP by query (row) and gallery",
        title_justify="left",
    )
    table.add_column("queries by")
    for name in ("channels", "params", "MACs", *tests.names):
        table.add_column(name, justify="right")
    for capacity, name, maps in zip(nest.model.capacities, tests.names, tests.maps, strict=False):
        model = nest.model.extract(capacity)
        costs = count_parameters(model), count_macs(model, model.resolution)
        table.add_row(
            name,
            f"{nest.model.width(capacity):.0%}",
            *(format_macs(cost) for cost in costs),
            *(f"{value:.4f}" for value in maps),
        )
    paragon = [f"{value:.4f}" for value in tests.maps[-1]]
    table.add_row(tests.names[-1], "", "", "", *paragon)
    console = stdout_console()
    console.print(table)
    if nest.config.method == "masks":
        console.print("Masks leave zeros in full-size layers: they save no work and no space.")
    console.print(f"Plot: {nest.path / 'cross_tests.html'}")
