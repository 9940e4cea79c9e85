"""Contextual similarity distillation: keep the similarities to the gallery neighbours."""

from torch import Tensor

from compat.losses.base import CompatibilityLoss, log_softmax_kl, register_loss
from compat.losses.neighbourhood import neighbour_similarities
from compat.losses.options import number, whole
from compat.targets import AlignmentTargets, Batch


@register_loss("csd", requires=("gallery_embeddings", "neighbours"))
class CSD(CompatibilityLoss):
    """KL(softmax(g·G_Kᵀ/τ_g) ‖ softmax(q·G_Kᵀ/τ_q)) over g's K nearest gallery vectors G_K.

    Wu, Wang, Zhou, Li, Tian, "Contextual similarity distillation for asymmetric image
    retrieval", CVPR 2022. The neighbours are found once, offline; they include the image's own
    vector. Labels are not used; images do not interact, so a batch of one is as good as any.

    Args:
        k: Number of gallery neighbours, no more than the gallery has training images.
        gallery_temperature: τ_g.
        query_temperature: τ_q.
    """

    def __init__(
        self, k: int = 128, gallery_temperature: float = 0.01, query_temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.k = whole("k", k, at_least=2)
        self.gallery_temperature = number("gallery_temperature", gallery_temperature, above=0)
        self.query_temperature = number("query_temperature", query_temperature, above=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        targets.neighbours(self.k)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        teacher, student = neighbour_similarities(query, target, batch, self.k)
        return log_softmax_kl(teacher / self.gallery_temperature, student / self.query_temperature)
