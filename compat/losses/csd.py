"""Contextual similarity distillation: keep the similarities to the gallery neighbours."""

from torch import Tensor

from compat.losses.base import CompatibilityLoss, log_softmax_kl, register_loss
from compat.targets import AlignmentTargets, Batch


@register_loss("csd", requires=("gallery_embeddings", "neighbours"))
class CSD(CompatibilityLoss):
    """KL(softmax(g·G_Kᵀ/τ_g) ‖ softmax(q·G_Kᵀ/τ_q)) over g's K nearest gallery vectors G_K.

    Wu, Wang, Zhou, Li, "Contextual similarity distillation for asymmetric image retrieval",
    CVPR 2022. The neighbours are found once, offline.

    Args:
        k: Number of gallery neighbours.
        gallery_temperature: τ_g.
        query_temperature: τ_q.
    """

    def __init__(
        self, k: int = 128, gallery_temperature: float = 0.01, query_temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.k = k
        self.gallery_temperature = gallery_temperature
        self.query_temperature = query_temperature

    def prepare(self, targets: AlignmentTargets) -> None:
        targets.neighbours(self.k)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        rows = batch.targets.neighbours(self.k)[batch.rows]
        context = batch.targets.gallery[rows].to(query.dtype)
        teacher = (context @ target.to(query.dtype).unsqueeze(2)).squeeze(2)
        student = (context @ query.unsqueeze(2)).squeeze(2)
        return log_softmax_kl(teacher / self.gallery_temperature, student / self.query_temperature)
