"""What alignment trains towards: gallery vectors of training images and what derives from them."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat.errors import CompatError

_COMPARED = 2048  # vectors by which it is judged how far cosines lie apart

Requirement = Literal["gallery_embeddings", "anchors", "neighbours", "labels", "prototypes"]


@dataclass(frozen=True)
class Batch:
    """The rows of one training batch and what the losses may look up for them.

    Attributes:
        rows: Rows of the alignment targets, int64 (B,).
        labels: Class number of each row, int64 (B,); -1 where unlabelled.
        targets: The alignment targets that ``rows`` index.
    """

    rows: Tensor
    labels: Tensor
    targets: "AlignmentTargets"

    @property
    def vectors(self) -> Tensor:
        """Gallery vector of each row, of length one, float32 (B, d)."""
        return self.targets.vectors[self.rows]

    @property
    def centred(self) -> "Batch":
        """The same batch with its targets seen from their centre."""
        return Batch(self.rows, self.labels, self.targets.centred)


@dataclass(frozen=True, eq=False)
class AlignmentTargets:
    """Gallery-space vectors that a query model is trained to reach.

    Attributes:
        vectors: L2-normalised gallery embedding of every training picture (views included),
            float32 (M, d); the first N are those of ``gallery``.
        gallery: L2-normalised gallery embeddings of the unaugmented training images, float32
            (N, d): where anchors, neighbours and prototypes come from.
        labels: Class number of every training picture, int64 (M,): 0 to C - 1 over the training
            classes, -1 where unlabelled.
        classifier: The gallery model's own weight vector of each training class, float32 (C, d),
            or None where it is not known.
        features: Further gallery-side vectors of the same pictures, each float32 (M, d_i), for
            losses that mix several; empty otherwise.
        centre: (d,) float32, which has been taken from all of these vectors, and which losses take
            from the query model's; None for nothing.
    """

    vectors: Tensor
    gallery: Tensor
    labels: Tensor
    classifier: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    centre: Tensor | None = None
    _neighbours: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _anchors: dict[tuple[int, int, int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def dimension(self) -> int:
        """Dimension d of the gallery space."""
        return self.vectors.shape[1]

    @property
    def classes(self) -> int:
        """Number C of training classes."""
        return int(self.labels.max()) + 1

    @property
    def provides(self) -> frozenset[Requirement]:
        """What losses may require of these targets."""
        base: frozenset[Requirement] = frozenset({"gallery_embeddings", "anchors", "neighbours"})
        return base | {"labels", "prototypes"} if bool((self.labels >= 0).all()) else base

    def batch(self, rows: Tensor) -> Batch:
        """Return the batch of the given rows, int64 (B,)."""
        return Batch(rows, self.labels[rows], self)

    @cached_property
    def centred(self) -> "AlignmentTargets":
        """The same targets seen from the mean of ``gallery``, of length one again.

        Pooled features that are never negative lie in a cone: what all of them share is a large
        part of every cosine and tells no image from another. Losses of centred vectors are spent
        on the rest. Scores are not touched: the query model still embeds in the space as it is.
        """
        centre = self.gallery.mean(dim=0)
        classifier = self.classifier
        return replace(
            self,
            vectors=F.normalize(self.vectors - centre, dim=1),
            gallery=F.normalize(self.gallery - centre, dim=1),
            classifier=None if classifier is None else F.normalize(classifier, dim=1) - centre,
            centre=centre,
            _neighbours={},
            _anchors={},
        )

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the cosines between different vectors of ``gallery``.

        Of 2,048 of them, evenly over all, where there are more; 1 where there are fewer than three.
        """
        step = -(-len(self.gallery) // _COMPARED)
        vectors = self.gallery[::step]
        if len(vectors) < 3:
            return 1.0
        above = torch.ones(len(vectors), len(vectors), dtype=torch.bool).triu(1)
        return float((vectors @ vectors.T).cpu()[above].std().clamp(min=1e-6))

    def seen_from_centre(self, embeddings: Tensor) -> Tensor:
        """Take the centre from unit vectors (B, d) and give them length one again."""
        return embeddings if self.centre is None else F.normalize(embeddings - self.centre, dim=1)

    def to(self, device: torch.device) -> "AlignmentTargets":
        """Return the same targets on ``device``."""
        return AlignmentTargets(
            self.vectors.to(device),
            self.gallery.to(device),
            self.labels.to(device),
            None if self.classifier is None else self.classifier.to(device),
            tuple(features.to(device) for features in self.features),
            None if self.centre is None else self.centre.to(device),
        )

    def prototypes(self) -> Tensor:
        """Return the mean gallery vector of every training class, of length one, (C, d)."""
        labels = self.labels[: len(self.gallery)]
        members = labels >= 0
        sums = self.gallery.new_zeros(self.classes, self.dimension)
        return F.normalize(sums.index_add(0, labels[members], self.gallery[members]), dim=1)

    def gallery_classifier(self) -> Tensor:
        """Return the classifier W_g of the gallery space, rows of length one, (C, d).

        It is the gallery model's own where that is known, else the class prototypes, as Shen et
        al., "Towards backward-compatible representation learning", CVPR 2020, section 3.3,
        synthesise it.
        """
        if self.classifier is None:
            return self.prototypes()
        return F.normalize(self.classifier, dim=1)

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
