"""`querynas gallery hash`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.gallery.joint import reference_of, study_of
from nas.cli.gallery.options import Data, Jointly, Pretrained, Query
from nas.cli.options import By, Epochs, Resolution, Seed, Test, Val


def hash_(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder to start from.")],
    data: Data,
    bits: Annotated[int, typer.Option(min=1, max=65_536, help="Length of a code.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
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
    """Derive a gallery of binary codes, searched by Hamming distance."""
    from compat.gallery.hashing import hash_gallery
    from compat.gallery.heads import HeadTraining
    from nas.cli.tables import print_gallery
    from nas.recipes.joint import hash_jointly, training_rows

    reference = reference_of(
        jointly, query, resolution=resolution, pretrained=pretrained, epochs=epochs, seed=seed
    )
    study = study_of(data, gallery, val=val, test=test, seed=seed, by=by)
    if reference is not None:
        space = hash_jointly(study, out, reference, bits=bits)
    else:
        rows, labels = training_rows(study)
        space = hash_gallery(
            study.gallery,
            out,
            bits=bits,
            train=rows,
            labels=labels,
            training=HeadTraining(seed=seed),
        )
    print_gallery(space)
