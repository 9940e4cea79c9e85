"""A gallery model that looks at every image several times."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import numpy as np
from tqdm import tqdm

from compat.errors import CompatError
from compat.gallery.enhancing.crops import ZOOM, ZOOMS, cut, whole, zooms
from compat.gallery.enhancing.regions import REGIONS, salient_regions
from compat.gallery.enhancing.weighting import consensus, keypoint_heat, mean, shares, unit
from compat.gallery.models import GalleryModel
from searchspaces.support.naming import did_you_mean

_CROPPING = {"multiscale": (zooms, ZOOMS), "regions": (salient_regions, REGIONS)}
STEPS = (*_CROPPING, "keypoints", "adaptive")
ONLY_GLOBAL = "onlyglobal"
_VERSION = 1  # raised whenever the same steps would give other vectors


def enhance(model: GalleryModel, steps: Sequence[str]) -> GalleryModel:
    """A gallery model of the same dimension that embeds several crops of each image.

    The gallery is embedded once, so more may be spent on it than on a query. The whole picture
    always takes part. ``multiscale`` adds `zooms`, ``regions`` adds `salient_regions`. The image's
    vector is the weighted mean of the crops' unit vectors, scaled to length one. A crop weighs as
    the share of the picture's area that it shows, with ``keypoints`` as the share of its
    `keypoint_heat`; ``adaptive`` then raises what agrees with the `consensus`. ``onlyglobal`` is
    all four.

    Args:
        model: Any gallery model; its resolution does not change.
        steps: Names; their order does not matter. None at all give ``model`` itself.

    Returns:
        A model that takes pictures √2 times as large, so that enlarged corners are sharp. Its
        ``macs`` are those of ONE pass of ``model``, which is what a query by the gallery network
        costs; an image of the gallery costs `passes` times that. Its spec names the steps and
        cannot be loaded.

    Raises:
        CompatError: For an unknown step, or one that weighs crops where no step makes any.
    """
    chosen = _known(steps)
    if not chosen:
        return model
    small = model.preprocessing.resolution
    side = round(small * ZOOM)
    cropping = [_CROPPING[step] for step in chosen if step in _CROPPING]
    crops = passes(chosen)
    everywhere = np.ones((side, side))

    def look(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = [whole(side)]
        for crop, _ in cropping:
            boxes += crop(picture)
        heat = keypoint_heat(picture) if "keypoints" in chosen else everywhere
        return np.stack([cut(picture, box, small) for box in boxes]), shares(heat, boxes)

    def run(pixels: np.ndarray, *, batch: int, description: str | None) -> np.ndarray:
        vectors = np.empty((len(pixels), model.dimension), dtype=np.float32)
        step = max(1, batch // crops)
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(
                total=len(pixels), desc=description, unit="images", disable=description is None
            ) as bar,
        ):
            for start in range(0, len(pixels), step):
                looks = list(pool.map(look, pixels[start : start + step]))
                parts = np.concatenate([parts for parts, _ in looks])
                found = unit(model.embed(parts, batch=batch).astype(np.float64))
                found = found.reshape(len(looks), crops, model.dimension)
                weights = np.stack([weights for _, weights in looks])
                if "adaptive" in chosen:
                    weights = consensus(found, weights)
                vectors[start : start + step] = mean(found, weights)
                bar.update(len(looks))
        return vectors

    return replace(
        model,
        spec=f"{model.spec} enhanced by {', '.join(chosen)}",
        preprocessing=model.preprocessing.model_copy(update={"resolution": side}),
        digest=sha256(json.dumps([_VERSION, model.digest, chosen]).encode()).hexdigest(),
        _embed=run,
    )


def passes(steps: Sequence[str]) -> int:
    """Crops per image: how often the gallery model runs for it.

    Raises:
        CompatError: As `enhance` does.
    """
    return 1 + sum(_CROPPING[step][1] for step in _known(steps) if step in _CROPPING)


def _known(steps: Sequence[str]) -> tuple[str, ...]:
    """The steps in their own order, each once."""
    for step in steps:
        if step not in (*STEPS, ONLY_GLOBAL):
            raise CompatError(
                f"There is no enhancement {step!r}{did_you_mean(step, (*STEPS, ONLY_GLOBAL))}, "
                f"expected some of {', '.join(STEPS)}, or {ONLY_GLOBAL} for all of them."
            )
    chosen = STEPS if ONLY_GLOBAL in steps else tuple(step for step in STEPS if step in steps)
    if chosen and not any(step in _CROPPING for step in chosen):
        raise CompatError(
            f"The enhancement {' and '.join(chosen)} weighs crops, but no step makes any: name "
            f"{' or '.join(_CROPPING)} as well."
        )
    return chosen
