"""Learning compatible embeddings: class centres of both spaces are aligned by a transformation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.losses.base import register_loss
from compat.losses.classifier import ClassifierLoss
from compat.losses.margin import arcface
from compat.losses.options import number
from compat.targets import AlignmentTargets, Batch


@register_loss("lce", requires=("labels", "prototypes"))
class LCE(ClassifierLoss):
    """ArcFace(q, W_q) + b·ArcFace(T(q), W_g) + a·mean_i ‖n(T(n(W_q,y_i))) − n(W_g,y_i)‖.

    n scales to length one, y_i is the class of image i of the batch, W_g is frozen and
    T(x) = x + U·relu(D·x + e) + f is a residual bottleneck d → d/2 → d that maps the query space
    to the gallery space, or the identity. After Meng, Zhang, Xu, Zhou, "Learning compatible
    embeddings", ICCV 2021, who align class centres "directly or via a transformation" (their
    published script: directly) and keep classes compact in the gallery space. Chosen here:
    ArcFace against W_g as the compactness term, the distance averaged over the classes of the
    batch, so that its cost does not grow with C, and no batch normalisation in T.

    T is the identity unless ``transform`` is set. **A trained T serves training only:** deployed
    and cross-tested is q, not T(q), so that whatever T learns is alignment that q lacks. U and f
    start at zero, hence T as the identity.

    Args:
        scale: s of both softmaxes; √d if None.
        margin: Margin of both, in radians.
        boundary: b.
        alignment: a.
        transform: Whether T is trained.
    """

    down: nn.Linear
    up: nn.Linear

    def __init__(
        self,
        scale: float | None = None,
        margin: float = 0.15,
        boundary: float = 0.5,
        alignment: float = 10.0,
        transform: bool = False,
    ) -> None:
        super().__init__(scale)
        self.margin = number("margin", margin, at_least=0, below=math.pi / 2)
        self.boundary = number("boundary", boundary, at_least=0)
        self.alignment = number("alignment", alignment, at_least=0)
        self.transform = transform

    def prepare(self, targets: AlignmentTargets) -> None:
        if self.transform:
            half = max(1, targets.dimension // 2)
            self.down = nn.Linear(targets.dimension, half)
            self.up = nn.Linear(half, targets.dimension)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)
        super().prepare(targets)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels
        options = {"scale": self.scale, "margin": self.margin}
        own = arcface(query, self.query_weight, labels, **options)
        moved = arcface(self.to_gallery(query), self.gallery_weight, labels, **options)
        centres = self.to_gallery(F.normalize(self.query_weight[labels]))
        gaps = F.normalize(centres) - self.gallery_weight[labels]
        distance = torch.linalg.vector_norm(gaps, dim=1).mean()
        return own + self.boundary * moved + self.alignment * distance

    def to_gallery(self, vectors: Tensor) -> Tensor:
        """Return T(vectors), (B, d)."""
        if not self.transform:
            return vectors
        return vectors + self.up(F.relu(self.down(vectors)))
