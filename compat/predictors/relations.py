"""Whether the candidate's features relate images to each other as the gallery model does."""

import numpy as np

from compat.predictors.base import register_predictor
from compat.predictors.inputs import PredictorInputs
from compat.predictors.maps import standard

_IMAGES = 2048  # at most so many validation images, evenly spaced, are related to each other


@register_predictor("relations")
def relations(inputs: PredictorInputs) -> float:
    """Negative distance between the two relation matrices of validation images, in [-2, 0].

    A relation matrix holds the cosines of all pairs of images: of standardised features for the
    candidate, of centred vectors for the gallery model. Both are scaled to Frobenius norm one
    before the distance ‖A − B‖_F is taken. Nothing is fitted to the gallery, so this asks how alike
    the two spaces are up to rotation. After the relation term of Dong et al., "DisWOT: Student
    Architecture Search for Distillation WithOut Training", CVPR 2023.
    """
    count = len(inputs.features)
    rows = np.unique(np.linspace(0, count - 1, min(count, _IMAGES)).astype(np.int64))
    mean, scale = standard(inputs.features[rows])
    candidate = _relations((inputs.features[rows] - mean) / scale)
    vectors = inputs.vectors[rows]
    gallery = _relations(vectors - vectors.mean(axis=0, dtype=np.float64))
    return -float(np.linalg.norm(candidate - gallery))


def _relations(vectors: np.ndarray) -> np.ndarray:
    """Cosines of all pairs of rows, without the diagonal, of Frobenius norm one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0.0)
    norm = np.linalg.norm(cosines)
    return cosines / norm if norm > 0 else cosines
