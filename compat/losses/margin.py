"""Softmax losses with a margin on the angle to the class weights, for embeddings of classes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class _MarginSoftmax(nn.Module, ABC):
    def __init__(self, dimension: int, classes: int, *, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dimension))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ``embeddings`` (B, d) of any length with ``labels`` (B,) int64."""
        cosines = functional.linear(
            functional.normalize(embeddings), functional.normalize(self.weight)
        )
        own = labels[:, None]
        logits = cosines.scatter(1, own, self._with_margin(cosines.gather(1, own)))
        return functional.cross_entropy(self.scale * logits, labels)

    @abstractmethod
    def _with_margin(self, cosines: Tensor) -> Tensor:
        """Cosines (B, 1) to the own class, made smaller by the margin."""


class CosFace(_MarginSoftmax):
    """Additive cosine margin: cos θ_y − m.

    Source: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018,
    eq. 4; the paper uses s = 64 and m = 0.35.
    """

    def __init__(
        self, dimension: int, classes: int, *, scale: float = 64.0, margin: float = 0.35
    ) -> None:
        super().__init__(dimension, classes, scale=scale, margin=margin)

    def _with_margin(self, cosines: Tensor) -> Tensor:
        return cosines - self.margin


class ArcFace(_MarginSoftmax):
    """Additive angular margin: cos(θ_y + m), margin in radians.

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
    2019, eq. 3; the paper uses s = 64 and m = 0.5.
    """

    def __init__(
        self, dimension: int, classes: int, *, scale: float = 64.0, margin: float = 0.5
    ) -> None:
        super().__init__(dimension, classes, scale=scale, margin=margin)

    def _with_margin(self, cosines: Tensor) -> Tensor:
        inside = cosines.clamp(-1 + 1e-7, 1 - 1e-7)  # acos has no slope at its ends
        return torch.cos(torch.acos(inside) + self.margin)
