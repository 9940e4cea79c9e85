"""Central similarity consistency hashing: one ±1 centre per class for both models."""

import math

import torch
from torch import Tensor

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.margin import cosface
from compat.losses.options import number
from compat.targets import AlignmentTargets, Batch


@register_loss("csch", requires=("gallery_embeddings", "labels", "prototypes"))
class CSCH(CompatibilityLoss):
    """CE(s·(cos(q, c_j) − m·[j = y])) + γ·MSE(√k·q, √k·g) over k bits, centres c frozen.

    Xuan, Wu, Zhang, Su, Li, Wang, "Central similarity consistency hashing for asymmetric image
    retrieval", Computational Visual Media, doi:10.1007/s41095-024-0428-y. The gallery holds ±1
    codes, so g, of length one, is ±1/√k and the code of an image is the signs of q. Both codes are
    compared at the scale of the bits: MSE is the mean over images and bits of (√k·q − √k·g)²,
    which is the mean of ‖q − g‖².

    The centres are the signs of the gallery's classifier, which `querynas gallery hash` writes; of
    a gallery without one they are the signs of the class means.

    Where ``target`` carries a gradient, because a hash head behind it is trained along, it gets the
    first term too, and consistency moves only the query: the gallery side is not drawn to the
    weaker model.

    Args:
        scale: s.
        margin: m, subtracted from the cosine to the own centre.
        consistency: γ.
    """

    centres: Tensor

    def __init__(self, scale: float = 8.0, margin: float = 0.2, consistency: float = 10.0) -> None:
        super().__init__()
        self.scale = number("scale", scale, above=0)
        self.margin = number("margin", margin, at_least=0)
        self.consistency = number("consistency", consistency, at_least=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        weights = targets.gallery_classifier()
        centres = torch.where(weights < 0, -1.0, 1.0) / math.sqrt(targets.dimension)
        self.register_buffer("centres", centres.to(weights), persistent=False)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        total = self._to_centres(query, batch.labels)
        if target.requires_grad:
            total = total + self._to_centres(target, batch.labels)
        distance = (query - target.detach()).square().sum(dim=1).mean()
        return total + self.consistency * distance

    def _to_centres(self, codes: Tensor, labels: Tensor) -> Tensor:
        centres = self.centres.to(codes.dtype)
        return cosface(codes, centres, labels, scale=self.scale, margin=self.margin)
