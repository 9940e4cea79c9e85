"""Relational knowledge distillation: distances and angles among the images of a batch."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import smooth_l1_loss

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.options import number
from compat.targets import Batch

_TRIPLETS = 1 << 17  # at once: half a MB, which stays in cache


@register_loss("rkd", requires=("gallery_embeddings",))
class RKD(CompatibilityLoss):
    """λ_D · mean of h(d_q(i,j) − d_g(i,j)) + λ_A · mean of h(a_q(i,j,k) − a_g(i,j,k)).

    d(i,j) is the Euclidean distance of images i and j divided by the mean distance of all pairs
    of the batch, a(i,j,k) the cosine of the angle at j between the directions to i and to k, h
    the Huber function (x²/2 up to 1, then |x| − 1/2). The means run over all ordered pairs and
    triplets of different images. Park, Kim, Lu, Cho, "Relational knowledge distillation", CVPR
    2019, with its weights for metric learning.

    A negative control: the loss does not change when the query space is rotated, mirrored or
    moved, so a model trained with it alone orders its own space well (self-test) and finds next
    to nothing in the gallery (cross-test near chance).

    Of images at the same point the distance is 0 and the direction, whose angles then are 0, has
    no slope. A batch of one gives 0, a batch of two has no angles. Labels are not used. Time
    grows with B³, memory with B².

    Args:
        distance_weight: λ_D.
        angle_weight: λ_A.
    """

    def __init__(self, distance_weight: float = 1.0, angle_weight: float = 2.0) -> None:
        super().__init__()
        self.distance_weight = number("distance_weight", distance_weight, at_least=0)
        self.angle_weight = number("angle_weight", angle_weight, at_least=0)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        pairs = max(1, len(query) * (len(query) - 1))
        triplets = max(1, pairs * (len(query) - 2))
        of_query, of_gallery = _distances(query), _distances(target)
        distance = smooth_l1_loss(
            of_query / (of_query.sum() / pairs).clamp_min(1e-12),
            of_gallery / (of_gallery.sum() / pairs).clamp_min(1e-12),
            reduction="sum",
        )
        angle = _AngleLoss.apply(_gram(query), of_query, _gram(target), of_gallery)
        return self.distance_weight * distance / pairs + self.angle_weight * angle / triplets


def _distances(embeddings: Tensor) -> Tensor:
    """Pairwise distances (B, B), exact where images are close, with slope 0 where they meet."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(embeddings, embeddings, compute_mode=exact)


def _gram(embeddings: Tensor) -> Tensor:
    """Inner products (B, B) about the mean, so that differences of them cancel little."""
    centred = embeddings - embeddings.mean(0)
    return centred @ centred.T


class _AngleLoss(torch.autograd.Function):
    """Sum of h(a_q(i,j,k) − a_g(i,j,k)) over triplets, from Gram matrices and distances (B, B).

    Value and slopes are taken in one pass over blocks of vertices j, so that no (B, B, B) is
    held. The cosine is a = M·u_ij·u_jk with u the inverse distances and the inner product
    M = (x_i − x_j)·(x_k − x_j) = G_ik − G_ij − G_jk + G_jj.
    """

    @staticmethod
    def forward(
        ctx: Any, gram: Tensor, distances: Tensor, gallery_gram: Tensor, gallery_distances: Tensor
    ) -> Tensor:
        total = gram.new_zeros(())
        by_gram, by_distance = torch.zeros_like(gram), torch.zeros_like(distances)
        vertices = torch.arange(len(gram), device=gram.device)
        for block in vertices.split(max(1, _TRIPLETS // len(gram) ** 2)):
            inverse = _inverse(distances[block])
            cosines = _cosines(gram, inverse, block)
            errors = cosines - _cosines(gallery_gram, _inverse(gallery_distances[block]), block)
            errors.diagonal(dim1=1, dim2=2).zero_()  # i = k is no triplet
            slopes = errors.clamp(-1, 1)  # of h, and h(x) = slope·x − slope²/2
            total += (slopes * errors).sum() - slopes.square().sum() / 2
            by_distance[block] = -2 * inverse * (slopes * cosines).sum(2)
            slopes *= inverse.unsqueeze(1)
            slopes *= inverse.unsqueeze(2)  # now of M, which is symmetric in i and k
            sums = slopes.sum(2)
            by_gram += slopes.sum(0)
            by_gram[block] -= 2 * sums
            by_gram[block, block] += sums.sum(1)
        ctx.save_for_backward(by_gram, by_distance)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_gram, by_distance = ctx.saved_tensors
        return slope * by_gram, slope * by_distance, None, None


def _inverse(distances: Tensor) -> Tensor:
    """1/d, and 0 where d is 0."""
    return distances.masked_fill(distances == 0, torch.inf).reciprocal()


def _cosines(gram: Tensor, inverse: Tensor, vertices: Tensor) -> Tensor:
    """Cosines (b, B, B) as [j, i, k] at b ``vertices`` j, whose inverse distances are (b, B)."""
    shift = gram.diagonal()[vertices].unsqueeze(1) / 2 - gram[vertices]
    cosines = gram + shift.unsqueeze(2)
    cosines += shift.unsqueeze(1)
    cosines *= inverse.unsqueeze(2)
    cosines *= inverse.unsqueeze(1)
    return cosines
