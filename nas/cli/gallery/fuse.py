"""`querynas gallery fuse`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.gallery.options import Data, Jointly, Pretrained, Query
from nas.cli.options import Epochs, Resolution, Seed, Test, Val


def fuse(
    galleries: Annotated[list[Path], typer.Argument(help="Two galleries or more of one data set.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    dimension: Annotated[
        int | None,
        typer.Option(min=2, max=65_536, help="Of the new gallery; by default that of the first."),
    ] = None,
    jointly: Jointly = None,
    pretrained: Pretrained = True,
    epochs: Epochs = 20,
    resolution: Resolution = 64,
    query: Query = None,
    val: Val = 0.15,
    test: Test = 0.25,
    seed: Seed = 0,
) -> None:
    """Mix several galleries of the same images into one (asymmetric feature fusion)."""
    from compat.gallery import GallerySpace
    from compat.gallery.fusing import fuse_galleries
    from compat.gallery.heads import HeadTraining
    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from compat.training.config import TrainingConfig
    from nas.cli.settings import settings
    from nas.cli.tables import print_gallery
    from nas.errors import StudyError
    from nas.recipes.joint import Reference, fuse_jointly, training_rows

    if query is not None and jointly is None:
        raise StudyError("--query keeps the query model of a joint training: give --jointly too.")
    parts = settings(SplitConfig, {"val": val, "test": test, "seed": seed})
    study = load_study_data(data, galleries[0], parts)
    others = [GallerySpace.open(path) for path in galleries[1:]]
    if jointly is not None:
        reference = Reference(
            backbone=jointly.removeprefix("timm:"),
            resolution=resolution,
            pretrained=pretrained,
            training=TrainingConfig(epochs=epochs),
            seed=seed,
            out=query,
        )
        space = fuse_jointly(study, others, out, reference, dimension=dimension)
    else:
        rows, labels = training_rows(study)
        space = fuse_galleries(
            [study.gallery, *others],
            out,
            dimension=dimension,
            train=rows,
            labels=labels,
            training=HeadTraining(seed=seed),
        )
    print_gallery(space)
