"""A study without a study file: what is known of photographs and pretrained backbones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm

from compat.data import open_data, split
from compat.gallery import GallerySpace
from compat.tasks.split import SplitConfig
from compat.tasks.unlabelled import UnlabelledConfig
from nas.config.budget import parse_macs
from nas.config.study import StudyConfig
from nas.errors import StudyError
from searchspaces import count_macs, own_resolution, timm_query_model

_SHARE = 3  # of the gallery model's MACs, where no budget is given
_TIERS = 5
_MEASURED = 64  # pixels at which the backbone's MACs are counted; they grow with the area
_STEP = 16  # pixels between resolutions: what patches and strides divide
_LEAST = 32
_RUNGS_APART = 3  # how much longer the last trainings are than those that choose among models
_SHOWN = 10_000  # images in the last training of a model
_MOST_EPOCHS = 20


def backbone_study(
    backbone: str,
    *,
    data: str,
    gallery: str | Path,
    checkpoint: str | Path | None = None,
    max_macs: str | int | None = None,
    epochs: int | None = None,
    split: SplitConfig | None = None,
    unlabelled: Sequence[UnlabelledConfig] = (),
    seed: int = 0,
) -> StudyConfig:
    """Return the study of a pretrained backbone that follows from what was measured on photographs.

    Slices of `timm-elastic` are scored as they come, and what promises most within each of five
    tiers is trained on. The tiers halve from the budget; for each of them there is a resolution at
    which the whole backbone just fits.

    Args:
        backbone: A timm name.
        data: Spec of the data set, whose images have vectors in the gallery.
        gallery: Gallery folder.
        checkpoint: File with the backbone's weights; the published ones by default.
        max_macs: Most MACs of a query, a number or as in "50M"; by default a third of the gallery
            model's.
        epochs: Of the last trainings, for a model that takes ``max_macs``; cheaper ones get more.
            By default as many as show some 10,000 images, 1 to 20.
        split: How the data are divided.
        unlabelled: Further training images.
        seed: Of all draws.

    Raises:
        StudyError: There is no budget, since the gallery does not say what its model costs.
        CompatError: The data or the gallery cannot be read.
        SearchSpaceError: timm has no such backbone.
    """
    space = GallerySpace.open(gallery)
    parts = split or SplitConfig(seed=seed)
    most = _budget(space, max_macs)
    tiers = [most >> i for i in range(_TIERS)]
    training = {"batch": 64, "ema": 0.95, "validate_every": 1}
    last = epochs or _epochs(data, parts)
    first = max(1, round(last / _RUNGS_APART))
    options: dict[str, Any] = {
        "backbone": backbone,
        "resolutions": _resolutions(backbone, tiers, space.dimension),
        "widths": [0.75, 0.875, 1.0],
    }
    if checkpoint is not None:
        options["checkpoint"] = str(checkpoint)
    return StudyConfig.model_validate(
        {
            "data": data,
            "gallery": str(gallery),
            "spaces": {
                backbone: {
                    "route": "supernet",
                    "space": "timm-elastic",
                    "options": options,
                    "training": {"epochs": 0},
                }
            },
            "budget": {"max_macs": most},
            "tiers": tiers,
            "sampler": "tpe",
            "trials": 30,
            "start": 20,
            "finish": [
                {"models": 8, "equal": "macs", "training": {"epochs": first, **training}},
                {"models": 5, "equal": "macs", "training": {"epochs": last, **training}},
            ],
            "split": parts,
            "unlabelled": tuple(unlabelled),
            "seed": seed,
        }
    )


def _budget(space: GallerySpace, given: str | int | None) -> int:
    if given is not None:
        return parse_macs(str(given))
    cost = space.manifest.model_macs
    if not cost:
        raise StudyError(
            f"The gallery '{space.path}' does not say what its model costs, so there is no budget; "
            "give --max-macs, as in 50M."
        )
    return cost // _SHARE


def _epochs(data: str, parts: SplitConfig) -> int:
    images = open_data(data)
    train = split(images, val=parts.val, test=parts.test, seed=parts.seed, by=parts.by).train
    return max(1, min(_MOST_EPOCHS, round(_SHOWN / max(1, len(train)))))


def _resolutions(backbone: str, tiers: Sequence[int], dimension: int) -> list[int]:
    """For every tier the side at which the whole backbone costs about as much, ascending."""
    most = own_resolution(backbone)
    config = timm.get_pretrained_cfg(backbone)
    if config is not None and config.fixed_input_size:
        return [most]
    model = timm_query_model(backbone, dimension, resolution=_MEASURED, pretrained=False)
    area = count_macs(model, _MEASURED) / _MEASURED**2
    sides = (_STEP * round((tier / area) ** 0.5 / _STEP) for tier in tiers)
    return sorted({min(most, max(_LEAST, side)) for side in sides})
