"""Asymmetric feature fusion: the query model under the classifier of a fused gallery."""

import torch
from torch import Tensor, nn

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.margin import arcface, new_weights
from compat.losses.options import number
from compat.targets import AlignmentTargets, Batch


@register_loss("aff", requires=("gallery_embeddings", "labels", "prototypes"))
class AFF(CompatibilityLoss):
    """ArcFace(q; ψ_q), with ψ_q the classifier of the gallery that several features were mixed to.

    Wu, Wang, Zhou, Lu, Li, "Asymmetric feature fusion for image retrieval", CVPR 2023.

    Towards a gallery that is there, as in a study, ψ_q is its frozen classifier, which `querynas
    gallery fuse` writes (of a gallery without one: the class means).

    Where the targets hold several ``features``, gallery and query are trained jointly, as in the
    paper: ``target`` is what a mixer makes of the features, with its gradient, and the loss is
    ArcFace(target; ψ_mix) + ArcFace(q; ψ_q). ψ_mix is trained along; ψ_q is its moving average,
    ψ_q ← μ·ψ_q + (1 − μ)·ψ_mix before each loss that is computed in training mode.

    Args:
        scale: s of ArcFace.
        margin: m of ArcFace, in radians.
        momentum: μ. The default suits trainings of some hundred steps.
    """

    query_weight: Tensor
    mixed_weight: nn.Parameter | None

    def __init__(self, scale: float = 32.0, margin: float = 0.2, momentum: float = 0.99) -> None:
        super().__init__()
        self.scale = number("scale", scale, above=0)
        self.margin = number("margin", margin, at_least=0)
        self.momentum = number("momentum", momentum, at_least=0, below=1)

    def prepare(self, targets: AlignmentTargets) -> None:
        self.mixed_weight = None
        weights = targets.gallery_classifier().clone()
        if targets.features:
            self.mixed_weight = new_weights(targets.classes, targets.dimension)
            weights = self.mixed_weight.detach().clone()
        self.register_buffer("query_weight", weights)
        self.to(targets.vectors.device)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        if self.mixed_weight is None:
            return self._classify(query, self.query_weight, batch.labels)
        if self.training:
            current = self.mixed_weight.detach()
            self.query_weight = torch.lerp(current, self.query_weight, self.momentum)
        mixed = self._classify(target, self.mixed_weight, batch.labels)
        return mixed + self._classify(query, self.query_weight, batch.labels)

    def _classify(self, embeddings: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
        weights = weights.to(embeddings.dtype)
        return arcface(embeddings, weights, labels, scale=self.scale, margin=self.margin)
