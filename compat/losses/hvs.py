"""The weight-level compatibility loss of compatibility-aware architecture search."""

import math

from torch import Tensor

from compat.losses.base import register_loss
from compat.losses.classifier import ClassifierLoss
from compat.losses.margin import arcface
from compat.losses.options import number
from compat.targets import Batch


@register_loss("hvs", requires=("labels", "prototypes"))
class HVS(ClassifierLoss):
    """ArcFace(q, W_q) + ArcFace(q, W_g), W_g frozen.

    Duggal, Zhou, Yang, Xiong, Xia, Tu, Soatto, "Compatibility-aware heterogeneous visual search",
    CVPR 2021.

    Args:
        scale: s of both; √d if None.
        margin: m of both, in radians.
    """

    def __init__(self, scale: float | None = None, margin: float = 0.15) -> None:
        super().__init__(scale)
        self.margin = number("margin", margin, at_least=0, below=math.pi / 2)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        own, gallery = (
            arcface(query, weights, batch.labels, scale=self.scale, margin=self.margin)
            for weights in (self.query_weight, self.gallery_weight)
        )
        return own + gallery
