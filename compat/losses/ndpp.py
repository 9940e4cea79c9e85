"""Neighbour-driven prototype perturbation: close gallery prototypes are moved apart, once."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from compat.losses.base import register_loss
from compat.losses.bct import BCT
from compat.losses.options import number
from compat.targets import AlignmentTargets

_CELLS = 1 << 24  # cosines held at once: 64 MB


@register_loss("ndpp", requires=("labels", "prototypes"))
class NDPP(BCT):
    """BCT to gallery prototypes that were moved away from their near neighbours before training.

    With p the rows of W_g, θ_ij the angle between p_i and p_j, θ* = arccos(t) and the missing
    angle m_ij = max(0, θ* − θ_ij) for j ≠ i, prototype i is rotated away from its neighbours:

        p̂_i = cos φ_i · p_i − sin φ_i · n(Σ_j m_ij·(p_j − (p_i·p_j)·p_i)),  φ_i = ½ max_j m_ij

    n scales to length one. A lone pair thus comes to lie at θ* exactly, no prototype moves by
    more than θ*/2, and one without a neighbour nearer than θ* stays. So do prototypes that are
    equal, or whose neighbours pull from all sides: they have no direction to give way to.
    The idea is from Zhou, Sun, Pei, Li, Wang, "Prototype perturbation for relaxing alignment
    constraints in backward-compatible learning", arXiv 2503.14824, 2025 (NDPP). The formula is
    chosen here, and it looks at the gallery's prototypes only, theirs at the new model's too.

    Args:
        scale: s; √d if None.
        threshold: t, the cosine above which prototypes are neighbours.
    """

    def __init__(self, scale: float | None = None, threshold: float = 0.9) -> None:
        super().__init__(scale)
        self.threshold = number("threshold", threshold, above=-1, below=1)

    def prepare(self, targets: AlignmentTargets) -> None:
        super().prepare(targets)
        self.gallery_weight = spread(self.gallery_weight, self.threshold)


def spread(prototypes: Tensor, threshold: float) -> Tensor:
    """Return unit ``prototypes`` (C, d) moved apart as :class:`NDPP` says, (C, d).

    Computed in blocks of rows, so that no C × C matrix is held for a large C.
    """
    wanted = math.acos(threshold)
    moved = torch.empty_like(prototypes)
    block = max(1, _CELLS // len(prototypes))
    starts = range(0, len(prototypes), block)
    for start in tqdm(starts, "moving prototypes apart", unit="block", disable=len(starts) == 1):
        own = prototypes[start : start + block]
        rows = torch.arange(len(own), device=own.device)
        cosines = (own @ prototypes.T).clamp(-1, 1)
        missing = F.relu(wanted - torch.acos(cosines))
        missing[rows, start + rows] = 0
        towards = missing @ prototypes - (missing * cosines).sum(1, keepdim=True) * own
        angle = missing.amax(1, keepdim=True) / 2
        away = F.normalize(towards, eps=1e-6)
        moved[start : start + block] = F.normalize(angle.cos() * own - angle.sin() * away)
    return moved
