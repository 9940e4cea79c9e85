"""Asymmetric metric learning: query anchors among gallery positives and hard negatives."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from compat.losses.base import CompatibilityLoss, register_loss
from compat.losses.options import number, whole
from compat.targets import AlignmentTargets, Batch


@register_loss("aml", requires=("gallery_embeddings", "labels"), centred=True)
class AML(CompatibilityLoss):
    """mean over anchors of ½‖q − p‖² + ½·Σ_n max(0, m − ‖q − n‖)² (+ λ·(1 − q·g)).

    The anchor q is a query embedding; p and n are gallery vectors of training images. Budnik and
    Avrithis, "Asymmetric metric learning for knowledge transfer", CVPR 2021: the contrastive loss
    (Contr) in its asymmetric form; with λ > 0 the regression is added (Contr+).

    - p is another image of the anchor's class, the next one in turn at every call; the anchor's
      own image where its class has no other.
    - The n are the gallery vectors nearest to q of ``negatives`` other classes, one of each as in
      the authors' code, among ``pool`` vectors: a window that moves through a shuffled gallery
      from call to call, or all of it where it is no larger. Where the pool holds fewer other
      classes (a training set of one class holds none), those there are count.

    The batch plays no part in the choice, so a batch of one or of one class is no special case.
    The number of calls is part of the loss's state; in evaluation mode it stands still.
    Memory is B·pool similarities and pool·d floats.

    Args:
        margin: m, a distance of unit vectors (at most 2).
        negatives: Number of negatives of an anchor, each of another class.
        pool: Number of gallery vectors that negatives are sought in at a step.
        regression: λ.
    """

    step: Tensor
    shuffled: Tensor
    members: Tensor
    first: Tensor
    size: Tensor
    place: Tensor

    def __init__(
        self,
        margin: float = 0.7,
        negatives: int = 5,
        pool: int = 4096,
        regression: float = 0.0,
    ) -> None:
        super().__init__()
        self.margin = number("margin", margin, above=0)
        self.negatives = whole("negatives", negatives, at_least=1)
        self.pool = whole("pool", pool, at_least=self.negatives)
        self.regression = number("regression", regression, at_least=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        labels = targets.labels[: len(targets.gallery)]
        rows = torch.arange(len(labels), device=labels.device)
        members = labels.argsort(stable=True)  # gallery rows, class by class
        size = labels.bincount(minlength=targets.classes)
        first = size.cumsum(0) - size
        place = torch.empty_like(members)  # of a gallery row within its class
        place[members] = rows - first[labels[members]]
        derived = {"members": members, "size": size, "first": first, "place": place}
        derived["shuffled"] = torch.randperm(len(labels)).to(labels.device)
        for name, tensor in derived.items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=labels.device))

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        gallery = batch.targets.gallery
        attraction = (query - gallery[self._positives(batch)].to(query.dtype)).square().sum(1)
        negatives, found = self._negatives(query.detach(), batch)
        distances = vector_norm(query.unsqueeze(1) - gallery[negatives].to(query.dtype), dim=2)
        repulsion = ((self.margin - distances).clamp_min(0).square() * found).sum(1)
        regression = 1 - (query * target).sum(1)
        if self.training:
            self.step += 1
        return (attraction / 2 + repulsion / 2 + self.regression * regression).mean()

    def _positives(self, batch: Batch) -> Tensor:
        """Gallery row (B,) of another image of each anchor's class."""
        own = self.place[batch.rows % len(self.members)]  # rows are images, then view after view
        size = self.size[batch.labels]
        ahead = 1 + self.step % (size - 1).clamp_min(1)
        return self.members[self.first[batch.labels] + (own + ahead) % size]

    def _negatives(self, query: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gallery rows (B, n), the nearest of n other classes, and which of them there are."""
        total = len(self.shuffled)
        size = min(self.pool, total)
        window = torch.arange(size, device=query.device) + self.step * size
        pool = self.shuffled[window % total]
        similarities = query @ batch.targets.gallery[pool].to(query.dtype).T
        labels, used = batch.targets.labels[pool], batch.labels
        rows, found = [], []
        for _ in range(min(self.negatives, size)):
            similarities = similarities.masked_fill(labels == used.unsqueeze(1), -torch.inf)
            similarity, nearest = similarities.max(1)
            rows.append(pool[nearest])
            found.append(similarity.isfinite())
            used = labels[nearest]
        return torch.stack(rows, dim=1), torch.stack(found, dim=1)
