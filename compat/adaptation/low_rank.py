"""Linear maps of a given rank, which cost fewer multiply-accumulates."""

import numpy as np

from compat.predictors.maps import LinearMap, Moments


def low_rank_factors(ridge: LinearMap, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of reduced-rank ridge regression for every rank at once.

    With W the ridge regression of penalty λ and V the right singular vectors of the values that it
    fits, those of XW above √λ·W, the best map of rank r is W V_r V_rᵀ. Mukherjee, Zhu, "Reduced
    rank ridge regression and its kernel extensions", Statistical Analysis and Data Mining 2011.

    Args:
        ridge: `ridge_map` of the moments.
        moments: Of the training images.

    Returns:
        WV (f, k) and Vᵀ (k, d) with k = min(f, d): the first r columns and rows are of rank r.
    """
    # (XᵀX + λ)W = XᵀY, so that the scatter of those values is WᵀXᵀY
    scatter = ridge.weights.T @ moments.cross
    _, vectors = np.linalg.eigh((scatter + scatter.T) / 2)
    basis = vectors[:, ::-1][:, : min(ridge.weights.shape)]
    return ridge.weights @ basis, basis.T
