"""Backward-compatible training: query embeddings must suit the gallery's classifier as well."""

import torch.nn.functional as F
from torch import Tensor

from compat.losses.base import log_softmax_kl, register_loss
from compat.losses.classifier import ClassifierLoss
from compat.losses.margin import cosines, softmax_loss
from compat.losses.options import number
from compat.targets import Batch


@register_loss("bct", requires=("labels", "prototypes"))
class BCT(ClassifierLoss):
    """CE(s·cos(q, W_q), y) + CE(s·cos(q, W_g), y), W_g frozen.

    Shen, Xiong, Xia, Soatto, "Towards backward-compatible representation learning", CVPR 2020:
    the influence loss, with class means as the pseudo-classifier where the gallery model's own is
    not known (section 3.3). Embeddings have length one here, so that cosines need a scale;
    √d (22.6 for d = 512) is that of the losses of Duggal et al. (`hvs`).

    Args:
        scale: s; √d if None.
    """

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return self.towards(query, batch.labels, self.gallery_weight[batch.labels])

    def towards(self, query: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
        """Return the loss with ``prototypes`` (B, d) for the rows of W_g of the own classes."""
        own = F.cross_entropy(self.scale * cosines(query, self.query_weight), labels)
        near = F.cosine_similarity(query, prototypes).unsqueeze(1)
        all_classes = cosines(query, self.gallery_weight)
        return own + softmax_loss(all_classes, labels, near, scale=self.scale)


@register_loss("bct_lwf", requires=("labels", "prototypes"))
class BCTLwF(ClassifierLoss):
    """CE(s·cos(q, W_q), y) + KL(softmax(s·cos(g, W_g)/T) ‖ softmax(s·cos(q, W_g)/T)), W_g frozen.

    BCT whose influence term has soft targets: what the gallery's classifier says of the image's
    gallery vector, as in Li, Hoiem, "Learning without forgetting", ECCV 2016, with which BCT is
    compared. KL differs from their cross-entropy by a constant of the gallery, and is 0 at q = g.
    There is no factor T².

    Args:
        scale: s; √d if None.
        temperature: T; Li and Hoiem use 2.
    """

    def __init__(self, scale: float | None = None, temperature: float = 2.0) -> None:
        super().__init__(scale)
        self.temperature = number("temperature", temperature, above=0)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        own = F.cross_entropy(self.scale * cosines(query, self.query_weight), batch.labels)
        teacher, student = (cosines(side, self.gallery_weight) for side in (target, query))
        softness = self.scale / self.temperature
        return own + log_softmax_kl(softness * teacher, softness * student)
