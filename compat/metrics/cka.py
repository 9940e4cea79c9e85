"""Linear CKA: similarity of two representations up to rotation."""

import numpy as np

from compat.errors import CompatError
from compat.metrics.pairs import blocks

_BLOCK = 8192  # rows converted to float64 at a time


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of centred X and Y, in [0, 1].

    Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited",
    ICML 2019. A rotation of either space leaves it as it is: two models whose vectors cannot be
    compared at all may have a CKA of 1. **It is no proof of compatibility**; the cross-test is.
    With few images (n not much above the dimensions) even unrelated spaces are well above 0. A
    space in which all images are one point gives 0. Memory is bounded by three d x d matrices.

    Args:
        first: (n, d1) embeddings of n images.
        second: (n, d2) embeddings of the same images.

    Raises:
        CompatError: The two are not of the same images, at least two.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second) or len(first) < 2:
        raise CompatError(
            f"CKA compares two embeddings of the same images, at least two, not arrays of shapes "
            f"{first.shape} and {second.shape}."
        )
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (first, second)]
    widths = (first.shape[1], second.shape[1])
    xx, yy, yx = (np.zeros((widths[i], widths[j])) for i, j in ((0, 0), (1, 1), (1, 0)))
    for rows in blocks(len(first), _BLOCK):
        x, y = first[rows] - means[0], second[rows] - means[1]
        xx += x.T @ x
        yy += y.T @ y
        yx += y.T @ x
    spread = [np.trace(xx) / len(first), np.trace(yy) / len(first)]
    still = [np.finfo(np.float32).eps ** 2 * float(mean @ mean) for mean in means]
    if any(s <= least for s, least in zip(spread, still, strict=True)):
        return 0.0
    return float(np.sum(yx**2) / (np.linalg.norm(xx) * np.linalg.norm(yy)))
