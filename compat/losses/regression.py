"""Regression onto the gallery vectors: the strongest simple baseline of asymmetric testing."""

from typing import Literal

from torch import Tensor

from compat.errors import CompatError
from compat.losses.base import (
    CompatibilityLoss,
    register_loss,
)
from compat.targets import Batch


@register_loss("regression", requires=("gallery_embeddings",), centred=True)
class Regression(CompatibilityLoss):
    """Mean of 1 − q·g (``distance="cosine"``) or of ‖q − g‖² (``distance="l2"``).

    On unit vectors the second is twice the first. Reported as the strongest simple baseline in
    asymmetric testing by Budnik and Avrithis, "Asymmetric metric learning for knowledge
    transfer", CVPR 2021 (Reg, section 4).
    """

    def __init__(self, distance: Literal["cosine", "l2"] = "cosine") -> None:
        super().__init__()
        if distance not in ("cosine", "l2"):
            raise CompatError(f"Regression distance is '{distance}'; use 'cosine' or 'l2'.")
        self.distance = distance

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        if self.distance == "l2":
            return (query - target).square().sum(1).mean()
        return (1 - (query * target).sum(1)).mean()
