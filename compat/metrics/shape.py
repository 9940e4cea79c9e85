"""The shape of a space: what all vectors share, and in how many directions they differ."""

from dataclasses import dataclass

import numpy as np

from compat.errors import CompatError

_CONE = 0.2  # mean cosine from which what all vectors share is said to matter


@dataclass(frozen=True)
class Shape:
    """What unit vectors of a space have in common.

    Attributes:
        mean_cosine: Mean cosine of two different vectors, in [-1, 1]: 0 where directions are spread
            evenly, near 1 in a narrow cone.
        effective_rank: Number of directions in which vectors differ from their mean: the
            exponential of the entropy of the covariance's eigenvalues, as shares of their sum, 1 to
            d. Roy and Vetterli, "The effective rank", EUSIPCO 2007, there of singular values.
        images: Number of vectors that were looked at.
    """

    mean_cosine: float
    effective_rank: float
    images: int

    @property
    def conical(self) -> bool:
        """Whether the common direction is a large part of every cosine."""
        return self.mean_cosine >= _CONE


def shape(vectors: np.ndarray) -> Shape:
    """Measure the shape of a space.

    Args:
        vectors: (n, d) vectors of images, n >= 2.

    Raises:
        CompatError: There are fewer than two vectors, or one is zero or not finite.
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise CompatError(
            f"The shape of a space is that of two vectors or more, (n, d), not {vectors.shape}."
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise CompatError("A vector of the space is zero or not finite; verify the gallery.")
    unit = vectors / lengths
    total, count = unit.sum(axis=0), len(unit)
    energies = np.linalg.eigvalsh(np.cov(unit, rowvar=False, bias=True).reshape(unit.shape[1], -1))
    shares = np.clip(energies, 0, None) / max(np.clip(energies, 0, None).sum(), 1e-300)
    entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
    return Shape(
        mean_cosine=float((total @ total - count) / (count * (count - 1))),
        effective_rank=float(np.exp(entropy)),
        images=count,
    )
