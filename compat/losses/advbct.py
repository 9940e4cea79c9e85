"""AdvBCT: elastic boundaries around the gallery's class centres, and an adversary on top."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.losses.base import register_loss
from compat.losses.classifier import ClassifierLoss
from compat.losses.margin import cosines
from compat.losses.options import number
from compat.targets import AlignmentTargets, Batch

_HIDDEN = 256


@register_loss("advbct", requires=("labels", "prototypes"))
class AdvBCT(ClassifierLoss):
    """CE(s·cos(q, W_q), y) + mean max(0, ‖q − c_y‖ − r_y) + BCE(D(R(q)), 1) + BCE(D(g), 0).

    Pan, Xu, Yang, He et al., "Boundary-aware backward-compatible representation via adversarial
    learning in image retrieval", CVPR 2023. c is the unit class mean of the gallery vectors, and

        r_c = r_max,c + σ(w_c)·(t − r_max,c)

    an elastic boundary between t and the largest distance r_max,c of a gallery vector of class c
    to c (as in the authors' published code, t = 1): w is trained, one for each class. A class of
    one image has r_max = 0. D tells query from gallery vectors by one hidden layer of 256 ReLUs;
    R is the identity whose gradient is multiplied by −α (Ganin, Lempitsky, "Unsupervised domain
    adaptation by backpropagation", ICML 2015), so that D learns to tell them apart and q to look
    like a gallery vector. The hinge is averaged over the whole batch. The authors raise α from 0
    to 1 and fade the adversary out over the epochs; a loss does not know how far its training is,
    so that α is constant here.

    Args:
        scale: s; √d if None.
        threshold: t, a distance of unit vectors.
        reversal: α; with 1 from the start, D outweighed the boundaries in our trials.
    """

    centres: Tensor
    radii: Tensor
    elasticity: nn.Parameter
    discriminator: nn.Sequential

    def __init__(
        self, scale: float | None = None, threshold: float = 1.0, reversal: float = 0.1
    ) -> None:
        super().__init__(scale)
        self.threshold = number("threshold", threshold, at_least=0, below=2)
        self.reversal = number("reversal", reversal, at_least=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        centres = targets.prototypes()
        members = targets.labels[: len(targets.gallery)]
        distances = torch.linalg.vector_norm(targets.gallery - centres[members], dim=1)
        radii = distances.new_zeros(len(centres)).scatter_reduce_(0, members, distances, "amax")
        self.register_buffer("centres", centres)
        self.register_buffer("radii", radii)
        self.elasticity = nn.Parameter(torch.empty(len(centres)).uniform_(-1, 1))
        self.discriminator = nn.Sequential(
            nn.Linear(targets.dimension, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)
        )
        super().prepare(targets)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels
        own = F.cross_entropy(self.scale * cosines(query, self.query_weight), labels)
        distances = torch.linalg.vector_norm(query - self.centres[labels], dim=1)
        outside = F.relu(distances - self.boundaries()[labels]).mean()
        return own + outside + self._told_apart(query, target)

    def boundaries(self) -> Tensor:
        """Return the elastic boundary r of every class, (C,)."""
        return self.radii + torch.sigmoid(self.elasticity) * (self.threshold - self.radii)

    def _told_apart(self, query: Tensor, target: Tensor) -> Tensor:
        as_query = self.discriminator(reverse_gradient(query, self.reversal))
        as_gallery = self.discriminator(target)
        # −log σ(D) and −log(1 − σ(D))
        return F.softplus(-as_query).mean() + F.softplus(as_gallery).mean()


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(inputs: Tensor, strength: float) -> Tensor:
    """Return ``inputs`` as they are; a gradient through them is multiplied by −``strength``."""
    reversed_: Tensor = _ReversedGradient.apply(inputs, strength)
    return reversed_
