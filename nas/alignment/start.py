"""The closed-form start: a projection fitted to the gallery vectors before anything is trained."""

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from compat.adaptation.pairs import affine
from compat.images import as_images, resize, to_float
from compat.predictors.maps import Moments, ridge_map
from compat.tasks.training_set import TrainingSet
from nas.errors import StudyError
from searchspaces import QueryModel, recalibrate

_MOST = 16_384  # training pictures that a projection is fitted to
_BATCH = 256


@torch.no_grad()
def fit_projection(model: QueryModel, data: TrainingSet, *, seed: int) -> None:
    """Fit the projection of a query model to gallery vectors, in place, without training.

    It becomes the ridge regression, with an intercept, of unit gallery vectors on the features that
    the backbone gives of the same pictures, views among them; its penalty is chosen by generalised
    cross-validation (`compat.predictors.maps.ridge_map`). The weight matrix keeps its norm, which
    trainings are used to, and as embeddings are made unit vectors no score depends on it.

    Args:
        model: The query model; left in evaluation mode.
        data: Training pictures with their gallery vectors, 16,384 of which are enough.
        seed: Of the choice of pictures, where there are more.

    Raises:
        StudyError: The model's features are not finite, or the same for all pictures.
    """
    model.eval()
    rows = chosen_rows(data, seed=seed)
    with tqdm(
        total=len(rows), desc="fit projection", unit="images", leave=False, delay=1
    ) as progress:
        parts = []
        for part in _parts(rows):
            parts.append(_pooled(model, data, part))
            progress.update(len(part))
    pooled = torch.cat(parts)
    projection = model.projection
    if isinstance(projection.norm, nn.BatchNorm1d):
        recalibrate(projection.norm, [pooled])
    features = projection.lifted(pooled).cpu().numpy()
    if not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
        raise StudyError(
            f"The features of the query model at {model.resolution} px are not finite or the same "
            "for all training images, so no projection can be fitted to them; give other weights."
        )
    vectors = data.targets.vectors[torch.from_numpy(rows)].cpu().numpy()
    affine(projection.linear, *ridge_map(Moments.of(features, vectors)).folded)


def chosen_rows(data: TrainingSet, *, seed: int) -> np.ndarray:
    """Return the view-major rows that a map is fitted to: all, or a seeded choice of 16,384.

    At most half of them are of ``further`` images, as in every epoch of a training.
    """
    rows = np.random.default_rng(seed).permutation(len(data.targets.vectors))
    of_others = rows % len(data) >= data.own
    others = rows[of_others][: _MOST // 2]
    own = rows[~of_others][: _MOST - len(others)]
    return np.sort(np.concatenate([own, others[: len(own)]]))


def _pooled(model: QueryModel, data: TrainingSet, rows: np.ndarray) -> Tensor:
    images = resize(as_images(data.pictured(rows)), model.resolution)
    return model.pooled(to_float(images, model.mean.device)).float()


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // _BATCH))
