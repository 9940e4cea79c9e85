"""Optimisation-driven prototype perturbation: gallery prototypes learn to keep apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.losses.base import register_loss
from compat.losses.bct import BCT
from compat.losses.options import number
from compat.targets import AlignmentTargets, Batch


@register_loss("odpp", requires=("labels", "prototypes"))
class ODPP(BCT):
    """BCT whose own class is a perturbed gallery prototype p̂ = n(W_g + δ), δ trained along.

    CE(s·cos(q, W_q), y) + CE(s·cos(q, W_g with p̂_y for its row y), y)
    + mean_{i, j≠y_i} max(0, p̂_{y_i}·p̂_j − t) + mean_{i, j≠y_i} max(0, p̂_{y_i}·n(W_q,j) − t)

    n scales to length one, i runs over the images of the batch and j over all classes. The first
    line does not move δ and the second moves nothing but δ. Two classes that the gallery model
    hardly tells apart thus need not be as close in the query space. As in the authors' code the
    other classes are those of W_g, not perturbed.
    Zhou, Sun, Pei, Li, Wang, "Prototype perturbation for relaxing alignment constraints in
    backward-compatible learning", arXiv 2503.14824, 2025 (ODPP). Chosen here: δ is a parameter of
    the loss that starts at zero and takes one step of the training's optimiser with every batch,
    for the classes of the batch against all (B × C, never C × C); the optimiser's weight decay
    draws it back. Prototypes whose cosines are below t all stay as they are, and the loss is BCT.

    Args:
        scale: s; √d if None.
        threshold: t, the cosine below which prototypes count as apart; 0.5 as in calls that
            the authors' code has commented out (its configuration says 0.9).
    """

    perturbation: nn.Parameter

    def __init__(self, scale: float | None = None, threshold: float = 0.5) -> None:
        super().__init__(scale)
        self.threshold = number("threshold", threshold, above=-1, below=1)

    def prepare(self, targets: AlignmentTargets) -> None:
        self.perturbation = nn.Parameter(torch.zeros(targets.classes, targets.dimension))
        super().prepare(targets)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels
        moved = F.normalize(self.gallery_weight + self.perturbation)
        own = moved[labels]
        within = self._crowding(own, moved, labels)
        across = self._crowding(own, F.normalize(self.query_weight.detach()), labels)
        return self.towards(query, labels, own.detach()) + within + across

    def _crowding(self, own: Tensor, others: Tensor, labels: Tensor) -> Tensor:
        """Mean excess of the cosines of ``own`` (B, d) to ``others`` (C, d) of another class."""
        excess = F.relu(own @ others.T - self.threshold)
        excess = excess.scatter(1, labels[:, None], 0.0)
        return excess.sum() / max(1, len(labels) * (len(others) - 1))
