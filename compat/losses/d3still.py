"""Decoupled differential distillation: keep the differences between neighbour similarities."""

from torch import Tensor
from torch.linalg import vector_norm

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.neighbourhood import neighbour_similarities
from compat.losses.options import number, whole
from compat.targets import AlignmentTargets, Batch

_SOFTENING = 0.1


@register_loss("d3still", requires=("gallery_embeddings", "neighbours"), centred=True)
class D3still(CompatibilityLoss):
    """α·‖first gaps‖/B + mean over images of (β·‖E_hard‖ + γ·‖E_easy‖)/(K − 1).

    s_g, s_q are the similarities of g and of q to the K gallery vectors nearest to g, best first;
    norms are Euclidean, over all entries.

    - First gaps: s_g[1] − s_q[1], one per image of the batch (B of them).
    - For ranks i, j from 2 to K: Δg = s_g[j] − s_g[i], Δq = s_q[j] − s_q[i], and the error
      E[i,j] = (Δq − Δg) / (0.1 + |Δg|).
    - E_hard holds the errors where the order is turned round (Δq·Δg < 0), E_easy all others,
      each with zeros elsewhere.

    Zero at q = g. Xie et al., "D3still: Decoupled differential distillation for asymmetric image
    retrieval", CVPR 2024; there the gallery is the batch, here it is the training images'
    gallery vectors with neighbours found once, offline. The first term is a norm over the batch
    divided by B, so that it weighs less in larger batches. Labels are not used.

    Args:
        k: Number K of gallery neighbours, no more than the gallery has training images.
        alpha: α.
        beta: β.
        gamma: γ.
    """

    def __init__(
        self, k: int = 10, alpha: float = 50.0, beta: float = 2.0, gamma: float = 1.0
    ) -> None:
        super().__init__()
        self.k = whole("k", k, at_least=3)
        self.alpha = number("alpha", alpha, at_least=0)
        self.beta = number("beta", beta, at_least=0)
        self.gamma = number("gamma", gamma, at_least=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        targets.neighbours(self.k)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        teacher, student = neighbour_similarities(query, target, batch, self.k)
        gap = vector_norm(teacher[:, 0] - student[:, 0]) / len(query)
        of_gallery, of_query = _differences(teacher[:, 1:]), _differences(student[:, 1:])
        errors = (of_query - of_gallery) / (_SOFTENING + of_gallery.abs())
        turned = of_query * of_gallery < 0
        hard = vector_norm(errors * turned, dim=(1, 2)).mean() / (self.k - 1)
        easy = vector_norm(errors * ~turned, dim=(1, 2)).mean() / (self.k - 1)
        return self.alpha * gap + self.beta * hard + self.gamma * easy


def _differences(similarities: Tensor) -> Tensor:
    """(B, n) to (B, n, n): entry [i, j] is similarity j less similarity i."""
    return similarities.unsqueeze(1) - similarities.unsqueeze(2)
