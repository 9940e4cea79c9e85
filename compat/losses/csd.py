"""Contextual similarity distillation: keep the similarities to other gallery vectors."""

from typing import Literal

from torch import Tensor

from compat.errors import CompatError
from compat.losses.base import CompatibilityLoss, log_softmax_kl, register_loss
from compat.losses.neighbourhood import neighbour_similarities
from compat.losses.options import number, whole
from compat.targets import AlignmentTargets, Batch

Temperature = float | Literal["spread"]


@register_loss("csd", requires=("gallery_embeddings", "neighbours"))
class CSD(CompatibilityLoss):
    """KL(softmax(g·G_Kᵀ/τ_g) ‖ softmax(q·G_Kᵀ/τ_q)), G_K gallery vectors around g.

    Wu, Wang, Zhou, Li, Tian, "Contextual similarity distillation for asymmetric image
    retrieval", CVPR 2022. Labels are not used.

    - With ``k="batch"``, G_K are the gallery vectors of the batch, as in the code published with
      D3still (Xie et al., CVPR 2024), whose authors report it as better. A batch of one image has
      nothing to compare, and its loss is 0.
    - With a number, they are the k gallery vectors nearest to g, as in the paper: found once,
      offline, the image's own among them. Images do not interact.

    Galleries differ in how far their similarities lie apart. The temperature "spread" is the
    standard deviation of the cosines between gallery vectors (`AlignmentTargets.spread`), so that
    the softmax sees them alike in all galleries.

    Args:
        k: "batch", or a number of neighbours, no more than the gallery has training images.
        gallery_temperature: τ_g, or "spread".
        query_temperature: τ_q, or "spread".
    """

    def __init__(
        self,
        k: int | Literal["batch"] = "batch",
        gallery_temperature: Temperature = 0.01,
        query_temperature: Temperature = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(k, str) and k != "batch":
            raise CompatError(f"The loss option k is '{k}'; give a whole number, or 'batch'.")
        self.k = k if isinstance(k, str) else whole("k", k, at_least=2)
        self.gallery_temperature = _temperature("gallery_temperature", gallery_temperature)
        self.query_temperature = _temperature("query_temperature", query_temperature)

    def prepare(self, targets: AlignmentTargets) -> None:
        if isinstance(self.k, int):
            targets.neighbours(self.k)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        if isinstance(self.k, int):
            teacher, student = neighbour_similarities(query, target, batch, self.k)
        else:
            teacher, student = target @ target.T, query @ target.T
        return log_softmax_kl(
            teacher / _in_figures(self.gallery_temperature, batch),
            student / _in_figures(self.query_temperature, batch),
        )


def _temperature(name: str, value: Temperature) -> Temperature:
    return value if value == "spread" else number(name, value, above=0)


def _in_figures(temperature: Temperature, batch: Batch) -> float:
    return batch.targets.spread if temperature == "spread" else temperature
