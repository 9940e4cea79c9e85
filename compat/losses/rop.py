"""Rank order preservation: the query orders the gallery neighbours as the gallery model does."""

import torch
from torch import Tensor

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.neighbourhood import neighbour_similarities
from compat.losses.options import number, whole
from compat.targets import AlignmentTargets, Batch

_STEP = 1e-6  # temperature of the gallery's comparisons, in effect a step function
_RANK_WEIGHT = 0.2
_IMAGES = 16  # at once: (16, K, K) floats, which stay in cache


@register_loss("rop", requires=("gallery_embeddings", "neighbours"))
class ROP(CompatibilityLoss):
    """mean over images of 1/K · Σ_ij w_i · (I_g[i,j] − I_q[i,j])² over pairs of neighbours.

    s_g, s_q are the similarities of g and of q to the K gallery vectors nearest to g, best first,
    and σ is the logistic function:

    - I_g[i,j] = σ((s_g[j] − s_g[i]) / 1e-6): does the gallery model rank j before i?
    - I_q[i,j] = σ((s_q[j] − s_g[i]) / τ): would the query, competing with the gallery's score?
    - w_i = i · softmax(0.2·s_g)_i, with the rank i counted from 1.

    Because I_q compares with s_g, the scores have to agree and not only their order. At q = g the
    loss is not zero for τ above 0: it is the softness of σ(·/τ), and its slope there is not zero
    either. "A general rank preserving framework for asymmetric image retrieval", ICLR 2023 (the
    first of its two forms), with the neighbours found once, offline.
    Labels are not used; images do not interact, so a batch of one is as good as any. Memory is a
    few B·K² floats beside the neighbours.

    Args:
        k: Number K of gallery neighbours, no more than the gallery has training images.
        temperature: τ.
    """

    def __init__(self, k: int = 128, temperature: float = 0.1) -> None:
        super().__init__()
        self.k = whole("k", k, at_least=2)
        self.temperature = number("temperature", temperature, above=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        targets.neighbours(self.k)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        teacher, student = neighbour_similarities(query, target, batch, self.k)
        pieces = zip(teacher.split(_IMAGES), student.split(_IMAGES), strict=True)
        return torch.cat([self._of_images(*piece) for piece in pieces]).mean()

    def _of_images(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Loss (b,) of each of a few images from their similarities (b, K)."""
        order = _comparisons(student, teacher, self.temperature)
        disagreement = (order - _comparisons(teacher, teacher, _STEP)).square().sum(2)
        ranks = torch.arange(1, self.k + 1, device=teacher.device)
        weights = torch.softmax(_RANK_WEIGHT * teacher, dim=1) * ranks
        return (weights * disagreement).sum(1) / self.k


def _comparisons(scores: Tensor, rivals: Tensor, temperature: float) -> Tensor:
    """(B, K) and (B, K) to (B, K, K): entry [i, j] is σ((score j − rival i)/temperature)."""
    return torch.sigmoid((scores / temperature).unsqueeze(1) - (rivals / temperature).unsqueeze(2))
