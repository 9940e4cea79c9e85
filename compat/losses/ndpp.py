"""Neighbour-driven prototype perturbation: gallery prototypes step away from their neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from compat.losses.base import register_loss
from compat.losses.bct import BCT
from compat.losses.options import number, whole
from compat.targets import AlignmentTargets, Batch

_CELLS = 1 << 24  # cosines held at once: 64 MB


@register_loss("ndpp", requires=("labels", "prototypes"))
class NDPP(BCT):
    """BCT whose own class is a gallery prototype that was moved away from its neighbours.

    With p the rows of W_g, s_ij = max(0, p_i·p_j) and j over the ``neighbours`` nearest to p_i,

        p̂_i = n(p_i + step · Σ_j s_ij·(p_i − p_j) / Σ_j s_ij)

    and the loss is CE(s·cos(q, W_q), y) + CE(s·cos(q, W_g with p̂_y for p_y), y): an image is
    drawn to its class's moved prototype and away from the others where they are.

    n scales to length one. Zhou, Sun, Pei, Li, Wang, "Prototype perturbation for relaxing
    alignment constraints in backward-compatible learning", arXiv 2503.14824, 2025 (NDPP), after
    the authors' code. Left out: their second, far smaller step that looks at the new model's
    prototypes. Chosen here: a prototype is no neighbour of itself nor of an opposite one.

    Args:
        scale: s; √d if None.
        neighbours: Number of neighbours, or all other classes where there are fewer.
        step: How far prototypes move, as a share of the mean difference. The authors' code
            multiplies by 0.4 once, or where it normalises, as configured, twice (0.16).
    """

    moved: Tensor

    def __init__(
        self, scale: float | None = None, neighbours: int = 100, step: float = 0.4
    ) -> None:
        super().__init__(scale)
        self.neighbours = whole("neighbours", neighbours, at_least=1)
        self.step = number("step", step, at_least=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        super().prepare(targets)
        self.register_buffer("moved", spread(self.gallery_weight, self.neighbours, self.step))

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return self.towards(query, batch.labels, self.moved[batch.labels])


def spread(prototypes: Tensor, neighbours: int, step: float) -> Tensor:
    """Return unit ``prototypes`` (C, d) moved apart as :class:`NDPP` says, (C, d).

    Computed in blocks of rows, so that no C × C matrix is held for a large C.
    """
    moved = torch.empty_like(prototypes)
    count = min(neighbours, len(prototypes) - 1)
    block = max(1, _CELLS // len(prototypes))
    starts = range(0, len(prototypes), block)
    for start in tqdm(starts, "moving prototypes apart", unit="block", disable=len(starts) == 1):
        own = prototypes[start : start + block]
        rows = torch.arange(len(own), device=own.device)
        similarities = (own @ prototypes.T).clamp_min(0)
        similarities[rows, start + rows] = 0
        nearest = similarities.topk(count)
        weights = torch.zeros_like(similarities).scatter_(1, nearest.indices, nearest.values)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-8)
        away = weights.sum(1, keepdim=True) * own - weights @ prototypes
        moved[start : start + block] = F.normalize(own + step * away)
    return moved
