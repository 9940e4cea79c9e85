"""Softmax losses over cosines to class weights, with a margin on the own class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def cosines(embeddings: Tensor, weights: Tensor) -> Tensor:
    """Return the cosine of every embedding to every class weight, (B, C), of (B, d) and (C, d)."""
    return functional.linear(functional.normalize(embeddings), functional.normalize(weights))


def cosface(
    embeddings: Tensor, weights: Tensor, labels: Tensor, *, scale: float, margin: float
) -> Tensor:
    """Mean softmax loss with the additive cosine margin cos θ_y − m.

    Source: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018,
    eq. 4; the paper uses s = 64 and m = 0.35.

    Args:
        embeddings: Embeddings of any length, (B, d).
        weights: Class weights of any length, trained or frozen, (C, d).
        labels: Class of each embedding, int64 (B,).
        scale: s.
        margin: m.
    """
    all_classes = cosines(embeddings, weights)
    own = all_classes.gather(1, labels[:, None])
    return softmax_loss(all_classes, labels, own - margin, scale=scale)


def arcface(
    embeddings: Tensor, weights: Tensor, labels: Tensor, *, scale: float, margin: float
) -> Tensor:
    """Mean softmax loss with the additive angular margin cos(θ_y + m).

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
    2019, eq. 3; the paper uses s = 64 and m = 0.5. Beyond π − m, where cos(θ_y + m) would rise
    again, it is cos θ_y − m·sin m as in the published code, so that more angle is never cheaper.

    Args:
        embeddings: Embeddings of any length, (B, d).
        weights: Class weights of any length, trained or frozen, (C, d).
        labels: Class of each embedding, int64 (B,).
        scale: s.
        margin: m, in radians.
    """
    all_classes = cosines(embeddings, weights)
    own = all_classes.gather(1, labels[:, None])
    inside = own.clamp(-1 + 1e-7, 1 - 1e-7)  # acos has no slope at its ends
    turned = torch.cos(torch.acos(inside) + margin)
    held = torch.where(own > -math.cos(margin), turned, own - margin * math.sin(margin))
    return softmax_loss(all_classes, labels, held, scale=scale)


def softmax_loss(cosines: Tensor, labels: Tensor, own: Tensor, *, scale: float) -> Tensor:
    """Mean softmax loss of ``cosines`` (B, C), that to the own class replaced by ``own`` (B, 1)."""
    return functional.cross_entropy(scale * cosines.scatter(1, labels[:, None], own), labels)


def new_weights(classes: int, dimension: int) -> nn.Parameter:
    """Return class weights (C, d) to be trained, drawn from N(0, 0.01²)."""
    return nn.Parameter(nn.init.normal_(torch.empty(classes, dimension), std=0.01))


class CosFace(nn.Module):
    """:func:`cosface` with class weights of its own."""

    def __init__(
        self, dimension: int, classes: int, *, scale: float = 64.0, margin: float = 0.35
    ) -> None:
        super().__init__()
        self.weight = new_weights(classes, dimension)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ``embeddings`` (B, d) of any length with ``labels`` (B,) int64."""
        return cosface(embeddings, self.weight, labels, scale=self.scale, margin=self.margin)


class ArcFace(nn.Module):
    """:func:`arcface` with class weights of its own."""

    def __init__(
        self, dimension: int, classes: int, *, scale: float = 64.0, margin: float = 0.5
    ) -> None:
        super().__init__()
        self.weight = new_weights(classes, dimension)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ``embeddings`` (B, d) of any length with ``labels`` (B,) int64."""
        return arcface(embeddings, self.weight, labels, scale=self.scale, margin=self.margin)
