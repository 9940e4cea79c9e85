"""Whether both embeddings of an image put its gallery neighbours in the same order."""

import numpy as np

from compat.evaluation.ranking import TIE
from compat.evaluation.similarity import Metric
from compat.metrics.neighbours import similarities_to
from compat.metrics.pairs import blocks, directions

_BLOCK = 64  # images whose K x K pairs are held at a time


def rank_disagreement(
    query: np.ndarray,
    target: np.ndarray,
    gallery: np.ndarray,
    neighbours: np.ndarray,
    *,
    metric: Metric = "cosine",
) -> float:
    """Mean share of the pairs among g's K neighbours that q puts in the other order, in [0, 1].

    Of the pairs that g orders, the discordant ones count 1 and those that q ties count ½, so a
    random order gives ½. Without ties this is (1 - τ)/2 with τ of Kendall, "A New Measure of Rank
    Correlation", Biometrika 1938. Similarities within `compat.evaluation.ranking.TIE` are ties.
    Images with no pair that g orders are left out; the result is 0 if that leaves none.

    Args:
        query: (n, d) embeddings by the query model.
        target: (n, d) embeddings of the same images by the gallery model.
        gallery: (N, d).
        neighbours: (n, K) gallery indices, `nearest` of ``target``.
        metric: Similarity of the gallery space.

    Raises:
        CompatError: The shapes do not fit, or a vector is zero or not finite.
    """
    q, g = directions(query, target)
    by_query = similarities_to(q, gallery, neighbours, metric)
    by_target = similarities_to(g, gallery, neighbours, metric)
    shares = []
    for rows in blocks(len(q), _BLOCK):
        ordered = _order(by_target[rows]) > 0
        found = _order(by_query[rows])
        wrong = np.sum(ordered & (found < 0), axis=(1, 2))
        tied = np.sum(ordered & (found == 0), axis=(1, 2))
        pairs = np.sum(ordered, axis=(1, 2))
        shares.append((wrong + tied / 2)[pairs > 0] / pairs[pairs > 0])
    known = np.concatenate(shares)
    return float(known.mean()) if len(known) else 0.0


def _order(similarities: np.ndarray) -> np.ndarray:
    """(n, K) to int8 (n, K, K): 1 where entry i stands before entry j, -1 after, 0 a tie."""
    gaps = similarities[:, :, None] - similarities[:, None, :]
    return (gaps > TIE).astype(np.int8) - (gaps < -TIE).astype(np.int8)
