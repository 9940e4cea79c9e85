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

_HIDDEN = 100


@register_loss("advbct", requires=("labels", "prototypes"))
class AdvBCT(ClassifierLoss):
    """CE(s·cos(q, W_q), y) + mean max(0, ‖q − c_y‖ − r_y) + CE(D(R(q)), 0) + CE(D(g), 1).

    Pan, Xu, Yang, He et al., "Boundary-aware backward-compatible representation via adversarial
    learning in image retrieval", CVPR 2023, after the authors' code. c is the plain mean of the
    gallery vectors of a class, and

        r_c = r_max,c + σ(w_c)·(t − r_max,c)

    an elastic boundary between t and the largest distance r_max,c of a gallery vector of class c
    to c, outliers left out (`largest_distances`): w is trained, one for each class. The hinge is
    averaged over the images outside their boundary; images of classes with one gallery vector
    have none. D tells query from gallery vectors by one hidden layer of 100 ReLUs behind batch
    normalisation, each side normalised by itself; R is the identity whose gradient is multiplied
    by −α (Ganin, Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015), so
    that D learns to tell them apart and q to look like a gallery vector. In a batch of one image
    nothing is told apart. The authors raise α from 0 to 1 and fade the adversary out over the
    epochs; a loss does not know how far its training is, so that α is constant here.

    Args:
        scale: s; √d if None.
        threshold: t, a distance of unit vectors.
        reversal: α; with 1 from the start, D outweighed the boundaries in our trials.
    """

    centres: Tensor
    radii: Tensor
    bounded: Tensor
    elasticity: nn.Parameter
    discriminator: nn.Sequential

    def __init__(
        self, scale: float | None = None, threshold: float = 1.0, reversal: float = 0.1
    ) -> None:
        super().__init__(scale)
        self.threshold = number("threshold", threshold, at_least=0, below=2)
        self.reversal = number("reversal", reversal, at_least=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        members = targets.labels[: len(targets.gallery)]
        sizes = members.bincount(minlength=targets.classes)
        sums = targets.gallery.new_zeros(targets.classes, targets.dimension)
        centres = sums.index_add(0, members, targets.gallery) / sizes.clamp_min(1).unsqueeze(1)
        distances = torch.linalg.vector_norm(targets.gallery - centres[members], dim=1)
        self.register_buffer("centres", centres)
        self.register_buffer("radii", largest_distances(distances, members, sizes))
        self.register_buffer("bounded", sizes > 1)
        self.elasticity = nn.Parameter(torch.empty(len(centres)).uniform_(-1, 1))
        self.discriminator = nn.Sequential(
            nn.Linear(targets.dimension, _HIDDEN, bias=False),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, 2),
        )
        super().prepare(targets)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels
        own = F.cross_entropy(self.scale * cosines(query, self.query_weight), labels)
        distances = torch.linalg.vector_norm(query - self.centres[labels], dim=1)
        excess = F.relu(distances - self.boundaries()[labels]) * self.bounded[labels]
        outside = excess.sum() / (excess > 0).sum().clamp_min(1)
        return own + outside + self._told_apart(query, target)

    def boundaries(self) -> Tensor:
        """Return the elastic boundary r of every class, (C,)."""
        return self.radii + torch.sigmoid(self.elasticity) * (self.threshold - self.radii)

    def _told_apart(self, query: Tensor, target: Tensor) -> Tensor:
        if len(query) == 1:
            return query.new_zeros(())
        labels = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        as_query = self.discriminator(reverse_gradient(query, self.reversal))
        as_gallery = self.discriminator(target)
        return F.cross_entropy(as_query, labels) + F.cross_entropy(as_gallery, labels + 1)


def largest_distances(distances: Tensor, members: Tensor, sizes: Tensor) -> Tensor:
    """Return the largest distance in every class that is no outlier, (C,); 0 of an empty class.

    In a class of n ≥ 4 an outlier is more than 1.5 times the interquartile range away from the
    quartiles, which are the distances of rank ⌊n/4⌋ and ⌊3n/4⌋, counted from 0.

    Args:
        distances: Distance of every vector to the centre of its class, float (N,).
        members: Class of every vector, int64 (N,).
        sizes: Number of vectors of every class, int64 (C,).
    """
    order = distances.argsort()
    ranked = distances[order[members[order].argsort(stable=True)]]  # class by class, rising
    classes = members.sort().values
    first = sizes.cumsum(0) - sizes
    lower, upper = (ranked[(first + n * sizes // 4)[classes]] for n in (1, 3))
    usual = (ranked <= upper + 1.5 * (upper - lower)) | (sizes[classes] < 4)
    radii = distances.new_zeros(len(sizes))
    return radii.scatter_reduce_(0, classes[usual], ranked[usual], "amax")


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
