"""What the losses share that classify query embeddings by the gallery's classes."""

import math

from torch import Tensor, nn

from compat.losses.base import CompatibilityLoss
from compat.losses.margin import new_weights
from compat.losses.options import number
from compat.targets import AlignmentTargets


class ClassifierLoss(CompatibilityLoss):
    """Base of losses with a trained query classifier W_q and the frozen gallery classifier W_g.

    W_g is the gallery model's own classifier where that is known, else the class means of the
    gallery vectors. Both hold one row for each training class and both work by cosines, since the
    embeddings are of length one.

    Args:
        scale: s, by which cosines are multiplied before the softmax; √d if None.

    Attributes:
        query_weight: W_q (C, d), drawn at random in ``prepare`` and trained along.
        gallery_weight: W_g (C, d), a buffer.
    """

    query_weight: nn.Parameter
    gallery_weight: Tensor

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self._scale = None if scale is None else number("scale", scale, above=0)

    @property
    def scale(self) -> float:
        """s."""
        return self._scale or math.sqrt(self.gallery_weight.shape[1])

    def prepare(self, targets: AlignmentTargets) -> None:
        self.register_buffer("gallery_weight", targets.gallery_classifier().clone())
        self.query_weight = new_weights(*self.gallery_weight.shape)
        self.to(targets.gallery.device)
