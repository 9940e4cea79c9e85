"""`querynas gallery train`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.gallery.options import Data, Strict
from nas.cli.options import By, Epochs, Resolution, Seed, Test, Val


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    backbone: Annotated[
        str, typer.Option(metavar="timm:NAME", help="Network to train, from a random start.")
    ] = "timm:resnet18",
    epochs: Epochs = 16,
    resolution: Resolution = 64,
    dimension: Annotated[
        int, typer.Option(min=2, max=65_536, help="Dimension of the gallery.")
    ] = 256,
    flip: Annotated[bool, typer.Option(help="Whether a mirrored image is the same thing.")] = True,
    val: Val = 0.15,
    test: Test = 0.25,
    by: By = None,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """Train a gallery network on the training classes; only where no trained one exists."""
    from compat.data import open_data, split
    from compat.gallery import TrainingRecipe, train_gallery_model

    images = open_data(data)
    recipe = TrainingRecipe(
        backbone=backbone,
        dimension=dimension,
        resolution=resolution,
        epochs=epochs,
        flip=flip,
        seed=seed,
    )
    splits = split(images, val=val, test=test, seed=seed, by=by)
    train_gallery_model(images, splits, out, recipe, strict=strict)
    print(f"Gallery model: {out}")
