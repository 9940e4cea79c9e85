"""Scores of a query model before it is aligned: the first rung of any search."""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from compat.data import decode
from compat.device import pick_device
from compat.embedding import embed
from compat.images import as_images, to_float
from compat.predictors import PredictorInputs, list_predictors, predict
from compat.tasks.study_data import StudyData
from searchspaces import PooledFeatures, QueryModel, count_macs, count_parameters, recalibrate

_BATCH = 64
_CALIBRATION = 512  # training images that BatchNorm statistics are estimated on


def predictions(
    model: QueryModel,
    data: StudyData,
    names: Iterable[str] | None = None,
    *,
    images: int = 4096,
    device: torch.device | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Score a candidate without training it; its weights may be random or pretrained.

    Args:
        model: The candidate; it is not changed.
        data: What it would be aligned to. Maps are fitted on training images and scored on the
            validation part; the test part is not touched.
        names: Registered predictors; all of them when None.
        images: Training images that maps are fitted to, fewer where there are fewer.
        device: Where to embed; the first GPU, or the CPU where there is none.
        seed: Of the choice of training images.

    Returns:
        One number per name; higher is better.

    Raises:
        CompatError: A name is unknown, or the candidate's features are not finite.
    """
    inputs = predictor_inputs(model, data, images=images, device=device, seed=seed)
    return predict(list_predictors() if names is None else names, inputs)


def predictor_inputs(
    model: QueryModel,
    data: StudyData,
    *,
    images: int = 4096,
    device: torch.device | None = None,
    seed: int = 0,
) -> PredictorInputs:
    """Embed training and validation images with a candidate's backbone, BatchNorm re-estimated.

    Without that the statistics of a network that was never trained are those of no data. Arguments
    as in `predictions`.
    """
    device = device or pick_device()
    backbone = PooledFeatures(copy.deepcopy(model)).to(device)
    train = decode(data.images.take(data.splits.train), model.resolution, fit=data.fit)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(train.images))[:images])
    recalibrate(backbone, _batches(train.pixels, rng.permutation(rows)[:_CALIBRATION], device))
    kept = data.gallery.rows(train.images.ids[rows])
    return PredictorInputs(
        train_features=embed(backbone, train.pixels[rows], device=device, description=None),
        train_vectors=np.asarray(data.gallery.vectors[kept], dtype=np.float32),
        features=embed(
            backbone, data.val.pixels(model.resolution), device=device, description=None
        ),
        vectors=data.val.vectors,
        queries=data.val.retrieval.queries,
        gallery=data.val.retrieval.gallery,
        truth=data.val.truth,
        macs=count_macs(model, model.resolution),
        parameters=count_parameters(model),
        metric=data.val.metric,
    )


def _batches(pixels: np.ndarray, rows: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """Batches of about equal size, because BatchNorm cannot learn from a single image."""
    for chosen in np.array_split(rows, -(-len(rows) // _BATCH)):
        yield to_float(as_images(pixels[np.sort(chosen)]), device)
