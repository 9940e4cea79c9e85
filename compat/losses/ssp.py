"""Structure similarity preservation: keep the similarities to quantiser centroids."""

import torch.nn.functional as F
from torch import Tensor

from compat.losses.base import CompatibilityLoss, log_softmax_kl, register_loss
from compat.targets import AlignmentTargets, Batch


@register_loss("ssp", requires=("gallery_embeddings", "anchors"))
class SSP(CompatibilityLoss):
    """mean over images b and sub-vectors j of KL(softmax(ĝ_j·Ĉ_jᵀ/τ) ‖ softmax(q̂_j·Ĉ_jᵀ/τ)).

    g and q are cut into ``subspaces`` sub-vectors, each L2-normalised; C_j are the centroids of a
    product quantiser of the gallery vectors (faiss), L2-normalised too. No labels are needed.
    Wu, Wang, Zhou, Lu, Li, "Structure similarity preservation learning for asymmetric image
    retrieval", IEEE TMM 2023.

    Args:
        subspaces: Number m of sub-vectors; must divide the gallery's dimension.
        bits: 2**bits centroids per sub-vector.
        temperature: τ.
        iterations: k-means iterations of the product quantiser.
        seed: Seed of the product quantiser.
    """

    anchors: Tensor

    def __init__(
        self,
        subspaces: int = 32,
        bits: int = 8,
        temperature: float = 0.1,
        iterations: int = 25,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.subspaces = subspaces
        self.bits = bits
        self.temperature = temperature
        self.iterations = iterations
        self.seed = seed

    def prepare(self, targets: AlignmentTargets) -> None:
        anchors = targets.anchors(self.subspaces, self.bits, self.iterations, self.seed)
        self.register_buffer("anchors", F.normalize(anchors, dim=2), persistent=False)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return log_softmax_kl(self._similarities(target), self._similarities(query))

    def _similarities(self, embeddings: Tensor) -> Tensor:
        """(B, d) to (m, B, 2**bits) scaled similarities."""
        parts = embeddings.unflatten(1, (self.subspaces, -1)).transpose(0, 1)
        parts = F.normalize(parts, dim=2) / self.temperature  # smaller than the product
        return parts @ self.anchors.to(parts.dtype).transpose(1, 2)
