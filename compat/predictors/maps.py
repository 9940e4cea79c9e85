"""Affine maps from features to gallery vectors, fitted in closed form."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_PENALTIES = np.logspace(-6, 3, 46)  # of ridge, per training image
_BLOCK = 2048  # training images in float64 at a time


@dataclass(frozen=True, eq=False)
class Moments:
    """All that a linear map needs to know of n training images, in float64.

    x are standardised features, y centred gallery vectors.

    Attributes:
        count: n.
        mean: (f,) mean of the features.
        scale: (f,) their standard deviation; infinite where it is below a millionth of the largest
            one, which leaves that feature out.
        offset: (d,) mean of the gallery vectors.
        scatter: (f, f) Σ xᵀx.
        cross: (f, d) Σ xᵀy.
        energy: Σ ‖y‖².
    """

    count: int
    mean: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    scatter: np.ndarray
    cross: np.ndarray
    energy: float

    @classmethod
    def of(cls, features: np.ndarray, vectors: np.ndarray) -> "Moments":
        """Sum up features (n, f) and gallery vectors (n, d) of the same images."""
        mean, scale = standard(features)
        offset = vectors.mean(axis=0, dtype=np.float64)
        scatter = np.zeros((features.shape[1], features.shape[1]))
        cross = np.zeros((features.shape[1], vectors.shape[1]))
        energy = 0.0
        for start in range(0, len(features), _BLOCK):
            x = (features[start : start + _BLOCK] - mean) / scale
            y = vectors[start : start + _BLOCK] - offset
            scatter += x.T @ x
            cross += x.T @ y
            energy += float(np.vdot(y, y))
        return cls(len(features), mean, scale, offset, scatter, cross, energy)

    @cached_property
    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (r,), ascending, and eigenvectors (f, r) of the scatter that are not 0."""
        energies, basis = np.linalg.eigh(self.scatter)
        kept = energies > energies[-1] * len(energies) * np.finfo(np.float64).eps
        return energies[kept], basis[:, kept]


def standard(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (f,) float64 of features (n, f), as `Moments` holds them."""
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    return mean, np.where(deviation > 1e-6 * deviation.max(), deviation, np.inf)


@dataclass(frozen=True, eq=False)
class LinearMap:
    """x ↦ ((x − mean) / scale) W + offset, in float64.

    Attributes:
        mean: (f,).
        scale: (f,).
        weights: (f, d) W.
        offset: (d,).
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offset: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Map features (n, f) to (n, d)."""
        return (features - self.mean) / self.scale @ self.weights + self.offset

    @property
    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights A (f, d) and bias b (d,) of the same map as x ↦ xA + b."""
        weights = self.weights / self.scale[:, None]
        return weights, self.offset - self.mean @ weights


def ridge_map(moments: Moments, *, penalty: float | None = None) -> LinearMap:
    """Ridge regression of gallery vectors on standardised features.

    Minimises Σ ‖y − xW‖² + λ‖W‖²_F. Hoerl, Kennard, "Ridge Regression", Technometrics 1970. One
    eigendecomposition serves every λ; λ minimises the generalised cross-validation of Golub, Heath,
    Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
    Technometrics 1979, over 46 values from 1e-6 n to 1e3 n.

    Args:
        moments: Of the training images.
        penalty: λ; chosen from the training images when None.
    """
    energies, basis = moments.spectrum
    projected = basis.T @ moments.cross
    if penalty is None:
        penalty = _chosen_penalty(moments, projected)
    weights = basis @ (projected / (energies + penalty)[:, None])
    return LinearMap(moments.mean, moments.scale, weights, moments.offset)


def procrustes_map(moments: Moments) -> LinearMap:
    """Rotation R and stretch c that minimise Σ ‖y − c·xR‖².

    x are standardised features, reduced to their d first principal components if there are more.
    R has orthonormal rows: with the SVD Σ xᵀy = USVᵀ, R = UVᵀ and c = tr S / Σ‖x‖². Schönemann, "A
    Generalized Solution of the Orthogonal Procrustes Problem", Psychometrika 1966. The map can turn
    the candidate's space but not reweigh its directions: it fits and overfits less than ridge.

    Args:
        moments: Of the training images.
    """
    _, basis = moments.spectrum
    axes = basis[:, -moments.cross.shape[1] :]
    left, singular, right = np.linalg.svd(axes.T @ moments.cross, full_matrices=False)
    spread = float(np.vdot(axes, moments.scatter @ axes))
    stretch = float(singular.sum()) / spread if spread else 0.0
    return LinearMap(moments.mean, moments.scale, stretch * (axes @ left @ right), moments.offset)


def _chosen_penalty(moments: Moments, projected: np.ndarray) -> float:
    """The λ of least GCV(λ) = n·RSS(λ) / (n − trace of the hat matrix)², the mean counted in it."""
    energies, _ = moments.spectrum
    explained = np.einsum("rd,rd->r", projected, projected) / energies
    penalties = moments.count * _PENALTIES
    left_out = penalties[:, None] / (energies + penalties[:, None])
    beyond = max(moments.energy - float(explained.sum()), 0.0)
    residual = beyond + left_out**2 @ explained
    freedom = moments.count - 1 - len(energies) + left_out.sum(axis=1)
    return float(penalties[np.argmin(residual / freedom**2)])
