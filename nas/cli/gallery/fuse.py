"""`querynas gallery fuse`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.gallery.joint import reference_of, study_of
from nas.cli.gallery.options import Data, Jointly, Pretrained, Query
from nas.cli.options import By, Epochs, Resolution, Seed, Test, Val


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
    by: By = None,
    seed: Seed = 0,
) -> None:
    """Mix several galleries of the same images into one (asymmetric feature fusion)."""
    from compat.gallery import GallerySpace
    from compat.gallery.fusing import fuse_galleries
    from compat.gallery.heads import HeadTraining
    from nas.cli.tables import print_gallery
    from nas.recipes.joint import fuse_jointly, training_rows

    reference = reference_of(
        jointly, query, resolution=resolution, pretrained=pretrained, epochs=epochs, seed=seed
    )
    study = study_of(data, galleries[0], val=val, test=test, seed=seed, by=by)
    others = [GallerySpace.open(path) for path in galleries[1:]]
    if reference is not None:
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
