"""`querynas gallery hash`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.gallery.options import Data, Jointly, Pretrained, Query
from nas.cli.options import Epochs, Resolution, Seed, Test, Val


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
    seed: Seed = 0,
) -> None:
    """Derive a gallery of binary codes, searched by Hamming distance."""
    from compat.gallery.hashing import hash_gallery
    from compat.gallery.heads import HeadTraining
    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from compat.training.config import TrainingConfig
    from nas.cli.settings import settings
    from nas.cli.tables import print_gallery
    from nas.errors import StudyError
    from nas.recipes.joint import Reference, hash_jointly, training_rows

    if query is not None and jointly is None:
        raise StudyError("--query keeps the query model of a joint training: give --jointly too.")
    parts = settings(SplitConfig, {"val": val, "test": test, "seed": seed})
    study = load_study_data(data, gallery, parts)
    if jointly is not None:
        reference = Reference(
            backbone=jointly.removeprefix("timm:"),
            resolution=resolution,
            pretrained=pretrained,
            training=TrainingConfig(epochs=epochs),
            seed=seed,
            out=query,
        )
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
