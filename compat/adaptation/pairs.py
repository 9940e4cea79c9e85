"""Features of an encoder with the gallery vectors of the same pictures."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from compat.errors import CompatError
from compat.predictors.maps import LinearMap, Moments, ridge_map
from searchspaces import Lift, Projection
from searchspaces.support.seeding import seeded


@dataclass(frozen=True, eq=False)
class Pairs:
    """What maps are fitted to.

    Attributes:
        features: (n, f) float32, of the training pictures.
        vectors: (n, d) float32, their unit gallery vectors.

    Raises:
        CompatError: The features are not finite, or the same for all pictures.
    """

    features: np.ndarray
    vectors: np.ndarray

    def __post_init__(self) -> None:
        if not np.isfinite(self.features).all() or not np.ptp(self.features, axis=0).any():
            raise CompatError(
                "The features of the encoder are not finite or the same for all training images, "
                "so no map can be fitted to them: give other weights or another resolution."
            )

    @cached_property
    def moments(self) -> Moments:
        """All that linear maps need to know."""
        return Moments.of(self.features, self.vectors)

    @cached_property
    def ridge(self) -> LinearMap:
        """The ridge regression, its penalty by generalised cross-validation."""
        return ridge_map(self.moments)

    def projection(self, lift: Lift | None = None) -> Projection:
        """Return a projection of these widths; nothing in it is fitted."""
        with seeded(0):
            return Projection(self.features.shape[1], self.vectors.shape[1], lift=lift)


@torch.no_grad()
def affine(linear: nn.Linear, weights: np.ndarray, bias: np.ndarray) -> None:
    """Make a layer x ↦ xW + b, times the number that keeps the norm of its weights.

    Embeddings are made unit vectors, so that no score depends on that number; trainings are used
    to the norm.

    Args:
        linear: The layer, changed in place.
        weights: (f, d) W.
        bias: (d,) b.
    """
    stretch = float(linear.weight.norm()) / max(float(np.linalg.norm(weights)), 1e-30)
    linear.weight.copy_(torch.from_numpy(stretch * weights.T))
    linear.bias.copy_(torch.from_numpy(stretch * bias))
