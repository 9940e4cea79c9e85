"""What the commands that train a gallery's head have in common: the study's data, a query model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compat.data.splits import By
    from compat.tasks.study_data import StudyData
    from nas.recipes.joint import Reference


def study_of(
    data: str, gallery: Path, *, val: float, test: float, seed: int, by: By | None
) -> StudyData:
    """Return data and gallery as a study sees them."""
    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from nas.cli.settings import settings

    parts = settings(SplitConfig, {"val": val, "test": test, "seed": seed, "by": by})
    return load_study_data(data, gallery, parts)


def reference_of(
    jointly: str | None,
    query: Path | None,
    *,
    resolution: int,
    pretrained: bool,
    epochs: int,
    seed: int,
) -> Reference | None:
    """Return the query model of a joint training, None where there is to be none.

    Raises:
        StudyError: There is a file for the query model, but no joint training.
    """
    from compat.training.config import TrainingConfig
    from nas.errors import StudyError
    from nas.recipes.joint import Reference

    if jointly is None:
        if query is not None:
            raise StudyError(
                "--query keeps the query model of a joint training: give --jointly too."
            )
        return None
    return Reference(
        backbone=jointly.removeprefix("timm:"),
        resolution=resolution,
        pretrained=pretrained,
        training=TrainingConfig(epochs=epochs),
        seed=seed,
        out=query,
    )
