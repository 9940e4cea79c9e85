"""Regression together with the relations inside the batch."""

from torch import Tensor

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.options import number
from compat.targets import Batch


@register_loss("raml", requires=("gallery_embeddings",))
class RAML(CompatibilityLoss):
    """mean of (1 − q·g)² + λ₁·MSE(QGᵀ, GGᵀ) + λ₂·MSE(QQᵀ, GGᵀ), Q and G (B, d) of the batch.

    MSE is the mean over the B(B − 1) pairs of different images; a batch of one has none, and its
    loss is the first term. Zero at q = g. Labels are not used. Suma and Tolias, "Large-to-small
    image resolution asymmetry in deep metric learning", WACV 2023.

    Args:
        cross_weight: λ₁, of the similarities between query and gallery embeddings.
        self_weight: λ₂, of the similarities among query embeddings.
    """

    def __init__(self, cross_weight: float = 0.7482, self_weight: float = 0.6778) -> None:
        super().__init__()
        self.cross_weight = number("cross_weight", cross_weight, at_least=0)
        self.self_weight = number("self_weight", self_weight, at_least=0)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        relations = target @ target.T
        regression = (1 - (query * target).sum(1)).square().mean()
        cross = _mean_square_of_pairs(query @ target.T - relations)
        among = _mean_square_of_pairs(query @ query.T - relations)
        return regression + self.cross_weight * cross + self.self_weight * among


def _mean_square_of_pairs(errors: Tensor) -> Tensor:
    """Mean square of the entries (B, B) off the diagonal; 0 where there is one image."""
    images = len(errors)
    squares = errors.square()
    return (squares.sum() - squares.trace()) / max(1, images * (images - 1))
