"""What alignment trains towards: gallery vectors of training images and what derives from them."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compat.errors import CompatError

Requirement = Literal["gallery_embeddings", "anchors", "neighbours", "labels", "prototypes"]


@dataclass(frozen=True)
class Batch:
    """The rows of one training batch and what the losses may look up for them.

    Attributes:
        rows: Rows of the alignment targets, int64 (B,).
        labels: Class index of each row, int64 (B,); -1 where unlabelled.
        targets: The alignment targets that ``rows`` index.
    """

    rows: Tensor
    labels: Tensor
    targets: "AlignmentTargets"


@dataclass(frozen=True, eq=False)
class AlignmentTargets:
    """Gallery-space vectors that a query model is trained to reach.

    Attributes:
        vectors: L2-normalised gallery embedding of every training picture (views included),
            float32 (M, d).
        gallery: L2-normalised gallery embeddings of the unaugmented training images, float32
            (N, d): where anchors and neighbours come from.
        labels: Class index of every training picture, int64 (M,), -1 where unlabelled.
    """

    vectors: Tensor
    gallery: Tensor
    labels: Tensor
    _neighbours: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _anchors: dict[tuple[int, int, int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def dimension(self) -> int:
        """Dimension d of the gallery space."""
        return self.vectors.shape[1]

    @property
    def provides(self) -> frozenset[Requirement]:
        """What losses may require of these targets."""
        base: frozenset[Requirement] = frozenset({"gallery_embeddings", "anchors", "neighbours"})
        return base | {"labels", "prototypes"} if bool((self.labels >= 0).all()) else base

    def batch(self, rows: Tensor) -> Batch:
        """Return the batch of the given rows, int64 (B,)."""
        return Batch(rows, self.labels[rows], self)

    def to(self, device: torch.device) -> "AlignmentTargets":
        """Return the same targets on ``device``."""
        return AlignmentTargets(
            self.vectors.to(device), self.gallery.to(device), self.labels.to(device)
        )

    def neighbours(self, k: int) -> Tensor:
        """Return the k nearest gallery rows of every target, best first, int64 (M, k).

        Computed once by exact search (faiss) and kept.

        Raises:
            CompatError: ``k`` exceeds the number of gallery vectors.
        """
        if k > len(self.gallery):
            raise CompatError(
                f"The loss asks for {k} gallery neighbours, but the training part of the gallery "
                f"holds {len(self.gallery)} vectors; lower `k` in the loss options."
            )
        if k not in self._neighbours:
            import faiss

            index = faiss.IndexFlatIP(self.dimension)
            index.add(self.gallery.cpu().numpy())
            _, rows = index.search(self.vectors.cpu().numpy(), k)
            self._neighbours[k] = torch.from_numpy(rows).to(self.vectors.device)
        return self._neighbours[k]

    def anchors(self, subspaces: int, bits: int, iterations: int, seed: int) -> Tensor:
        """Return product-quantiser centroids of the gallery, (subspaces, 2**bits, d/subspaces).

        Trained once (faiss) and kept.

        Raises:
            CompatError: ``subspaces`` does not divide d, or the gallery is smaller than 2**bits.
        """
        if self.dimension % subspaces:
            raise CompatError(
                f"The gallery's dimension {self.dimension} is not divisible by the loss option "
                f"subspaces={subspaces}; choose a divisor of {self.dimension}."
            )
        if len(self.gallery) < 2**bits:
            raise CompatError(
                f"{2**bits} anchors (bits={bits}) need as many gallery vectors, but the training "
                f"part of the gallery holds {len(self.gallery)}; lower `bits` in the loss options."
            )
        key = (subspaces, bits, iterations, seed)
        if key not in self._anchors:
            self._anchors[key] = self._quantise(*key)
        return self._anchors[key]

    def _quantise(self, subspaces: int, bits: int, iterations: int, seed: int) -> Tensor:
        import faiss

        quantiser = faiss.ProductQuantizer(self.dimension, subspaces, bits)
        quantiser.cp.niter = iterations
        quantiser.cp.seed = seed
        quantiser.cp.min_points_per_centroid = 1
        quantiser.train(np.ascontiguousarray(self.gallery.cpu().numpy()))
        centroids = faiss.vector_to_array(quantiser.centroids)
        shape = (subspaces, 2**bits, self.dimension // subspaces)
        return torch.from_numpy(centroids.reshape(shape)).to(self.vectors.device)
