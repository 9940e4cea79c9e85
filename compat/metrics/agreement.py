"""All embedding-level metrics of one query model at once."""

from dataclasses import asdict, dataclass

import numpy as np

from compat.evaluation.similarity import Metric
from compat.metrics.anchors import anchor_kl, kmeans_anchors
from compat.metrics.cka import linear_cka
from compat.metrics.cosine import mean_cosine
from compat.metrics.neighbours import Ignored, largest_k, nearest
from compat.metrics.overlap import neighbourhood_overlap
from compat.metrics.pairs import directions
from compat.metrics.ranking import rank_disagreement
from compat.metrics.top_k import top_k_kl


@dataclass(frozen=True)
class Agreement:
    """How far a query model's embeddings agree with the gallery model's, without any labels.

    Attributes:
        cosine: `mean_cosine`; 1 is perfect.
        overlap: `neighbourhood_overlap` of the first ``overlap_k`` neighbours; 1 is perfect.
        anchor_kl: `anchor_kl` with ``anchors`` k-means centroids of the gallery; 0 is perfect.
        top_k_kl: `top_k_kl` over ``k`` neighbours; 0 is perfect.
        rank_disagreement: `rank_disagreement` among ``k`` neighbours; 0 is perfect, ½ is chance.
        cka: `linear_cka`; 1 proves nothing, since rotations do not change it.
        overlap_k: Length of the lists whose overlap was taken.
        k: Number of gallery neighbours that were compared.
        anchors: Number of anchors.
        images: Number of images.
    """

    cosine: float
    overlap: float
    anchor_kl: float
    top_k_kl: float
    rank_disagreement: float
    cka: float
    overlap_k: int
    k: int
    anchors: int
    images: int

    def as_dict(self) -> dict[str, float | int]:
        """JSON-able values."""
        return asdict(self)


def agreement(
    query: np.ndarray,
    target: np.ndarray,
    gallery: np.ndarray,
    *,
    ignored: Ignored = None,
    metric: Metric = "cosine",
    overlap_k: int = 10,
    k: int = 100,
    anchors: int = 256,
    seed: int = 0,
) -> Agreement:
    """Measure how far two embeddings of the same images agree in a gallery.

    The gallery is streamed, so it may be a memory map of any length. ``overlap_k``, ``k`` and
    ``anchors`` are lowered to what the gallery holds; the result says what was used.

    Args:
        query: (n, d) embeddings by the query model, n >= 2.
        target: (n, d) embeddings of the same images by the gallery model.
        gallery: (N, d) gallery vectors.
        ignored: Gallery entries to leave out per image, such as the image itself.
        metric: Similarity of the gallery space, by which neighbours are found and ordered; cosine,
            anchors and CKA are of the real-valued embeddings.
        overlap_k: Length of the lists whose overlap is taken.
        k: Number of gallery neighbours for the divergence and the order.
        anchors: Number of k-means centroids of the gallery.
        seed: Of the anchors.

    Raises:
        CompatError: The shapes do not fit, a vector is zero or not finite, or an image has no
            gallery entry left.
    """
    q, g = directions(query, target)
    left = largest_k(len(gallery), ignored)
    overlap_k, k, anchors = min(overlap_k, left), min(k, left), min(anchors, len(gallery))
    neighbours = nearest(g, gallery, max(k, overlap_k), ignored=ignored, metric=metric)
    found = nearest(q, gallery, overlap_k, ignored=ignored, metric=metric)
    context = neighbours[:, :k]
    return Agreement(
        cosine=mean_cosine(q, g),
        overlap=neighbourhood_overlap(found, neighbours[:, :overlap_k]),
        anchor_kl=anchor_kl(q, g, kmeans_anchors(gallery, anchors, seed=seed)),
        top_k_kl=top_k_kl(q, g, gallery, context, metric=metric),
        rank_disagreement=rank_disagreement(q, g, gallery, context, metric=metric),
        cka=linear_cka(q, g),
        overlap_k=overlap_k,
        k=k,
        anchors=anchors,
        images=len(q),
    )
