"""Exact nearest gallery entries, and the similarities to them."""

from collections.abc import Sequence

import numpy as np

from compat.errors import CompatError
from compat.evaluation import Truth, top_k
from compat.evaluation.similarity import Metric, gallery_rows, query_rows
from compat.metrics.pairs import blocks

Ignored = Truth | Sequence[np.ndarray] | None
"""Gallery entries that do not count, such as the query itself; see `compat.evaluation.top_k`."""

_SEARCHED = 1024  # vectors whose similarities to a block of the gallery are held at a time
_COMPARED = 64  # vectors whose neighbours are held at a time


def nearest(
    vectors: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    ignored: Ignored = None,
    metric: Metric = "cosine",
) -> np.ndarray:
    """Indices of the ``k`` most similar gallery entries of every vector, best first.

    The gallery is streamed; it may be a memory map.

    Args:
        vectors: (n, d).
        gallery: (N, d).
        k: Length of the lists.
        ignored: Gallery entries to leave out per vector.
        metric: Similarity of the gallery space.

    Returns:
        (n, k) int64.

    Raises:
        CompatError: A vector has fewer than ``k`` entries left, the shapes do not fit, or a
            vector is zero or not finite.
    """
    hidden = ignored.ignored if isinstance(ignored, Truth) else ignored
    most = largest_k(len(gallery), hidden)
    if not 1 <= k <= most:
        raise CompatError(
            f"{k} gallery neighbours are asked for, but {most} is the most that every image has "
            "left: choose k from 1 to that."
        )
    return np.concatenate(
        [
            top_k(vectors[rows], gallery, hidden and hidden[rows], k, metric=metric)
            for rows in blocks(len(vectors), _SEARCHED)
        ]
    )


def largest_k(gallery_size: int, ignored: Ignored) -> int:
    """The number of gallery entries that every query has left."""
    hidden = ignored.ignored if isinstance(ignored, Truth) else ignored
    return gallery_size - max((len(rows) for rows in hidden or ()), default=0)


def similarities_to(
    vectors: np.ndarray, gallery: np.ndarray, neighbours: np.ndarray, metric: Metric
) -> np.ndarray:
    """Similarities (n, K) float64 of vectors (n, d) to their gallery entries (n, K).

    With the metric ``hamming`` they are cosines of the signs, 1 - 2·(Hamming distance) / d.
    """
    asking = query_rows(vectors, metric)
    found = np.empty(neighbours.shape, dtype=np.float64)
    for rows in blocks(len(asking), _COMPARED):
        entries = gallery_rows(gallery, neighbours[rows].ravel(), 0, metric=metric)
        entries = entries.reshape(*neighbours[rows].shape, -1)
        found[rows] = np.einsum("nd,nkd->nk", asking[rows], entries, dtype=np.float64)
    return found / asking.shape[1] if metric == "hamming" else found
