"""Retrieval scores of embeddings: one ranking, the three tests of compatibility, and top lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from compat.errors import CompatError
from compat.evaluation import hamming
from compat.evaluation.measures import (
    average_precision,
    average_precision_at,
    average_precision_at_r,
    inverse_negative_penalty,
    precision_at,
    recall_at,
    revisitop_precision_at,
    trapezoid_average_precision,
)
from compat.evaluation.ranking import positive_ranks
from compat.evaluation.similarity import Metric, check_shapes, gallery_blocks, query_rows
from compat.evaluation.truth import Truth, no_positives

AveragePrecision = Literal["standard", "trapezoid"]

_CUTOFFS = (1, 5, 10)
_RESAMPLES = 1000
_BATCH = 100  # resamples held at a time


@dataclass(frozen=True)
class Retrieved:
    """What one ranking of a gallery by queries achieved; all means are over counted queries.

    Attributes:
        average_precision: Definition behind ``map`` and ``ap``: ``standard`` or ``trapezoid``.
        map: Mean average precision.
        ap: (Q,) float64 average precision per query, nan without positives.
        recall: Recall@k (CMC) for k = 1, 5, 10.
        precision: Mean precision@k for k = 1, 5, 10; with ``trapezoid`` revisitop's mP@k.
        map_at_100: mAP@100 as in Google Landmarks v2.
        map_at_r: mAP@R as in metric learning.
        minp: Mean inverse negative penalty.
        queries: Number of counted queries.
        skipped: Number of queries without positives.
        seed: Of the bootstrap.
    """

    average_precision: AveragePrecision
    map: float
    ap: np.ndarray
    recall: dict[int, float]
    precision: dict[int, float]
    map_at_100: float
    map_at_r: float
    minp: float
    queries: int
    skipped: int
    seed: int = 0

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval of ``map`` over queries."""
        return bootstrap_interval(self.ap[~np.isnan(self.ap)], seed=self.seed)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able summary, without the per-query values."""
        own = (field.name for field in fields(self) if field.name not in ("ap", "seed"))
        summary = {name: getattr(self, name) for name in own}
        for name in ("recall", "precision"):
            summary[name] = {str(k): value for k, value in summary[name].items()}
        return summary | {"interval": list(self.interval)}


def evaluate(
    queries: np.ndarray,
    gallery: np.ndarray,
    truth: Truth,
    *,
    average_precision: AveragePrecision = "standard",
    metric: Metric = "cosine",
    block: int = 8192,
    seed: int = 0,
) -> Retrieved:
    """Rank ``gallery`` (N, d) for every row of ``queries`` (Q, d) and measure against ``truth``.

    Args:
        average_precision: ``standard``, or ``trapezoid`` as revisited Oxford and Paris ask for.
        metric: ``cosine``, ``ip`` for the inner product with gallery vectors as they are, or
            ``hamming`` for the signs of both sides. Under the last every measure is its
            expectation over the order of ties, see `compat.evaluation.hamming`.
        block: Gallery rows held at a time.
        seed: Of the bootstrap over queries (1000 resamples).

    Raises:
        CompatError: As `positive_ranks`, and when no query has a positive.
    """
    if metric == "hamming":
        ties = hamming.count_ties(queries, gallery, truth, block=block)
        return _summarise_ties(ties, average_precision, seed)
    ranks = positive_ranks(queries, gallery, truth, block=block, metric=metric)
    return summarise(ranks, average_precision=average_precision, seed=seed)


def summarise(
    ranks: Sequence[np.ndarray],
    *,
    average_precision: AveragePrecision = "standard",
    seed: int = 0,
) -> Retrieved:
    """All measures of ranks that `positive_ranks` gave.

    Raises:
        CompatError: When no query has a positive, or the average precision is unknown.
    """
    _check_definition(average_precision)
    ap_of, precision_of = _DEFINITIONS[average_precision]
    lengths = np.array([len(r) for r in ranks])
    if not lengths.any():
        raise no_positives(len(ranks))
    alike = [np.flatnonzero(lengths == length) for length in np.unique(lengths[lengths > 0])]
    stacks = [(rows, np.stack([ranks[row] for row in rows.tolist()])) for rows in alike]

    def of_queries(measure: Callable[..., np.ndarray], *arguments: int) -> np.ndarray:
        values = np.full(len(ranks), np.nan)
        for rows, stack in stacks:
            values[rows] = measure(stack, *arguments)
        return values

    def mean(measure: Callable[..., np.ndarray], *arguments: int) -> float:
        return float(np.nanmean(of_queries(measure, *arguments)))

    ap = of_queries(ap_of)
    known = ap[~np.isnan(ap)]
    return Retrieved(
        average_precision=average_precision,
        map=float(known.mean()),
        ap=ap,
        recall={k: mean(recall_at, k) for k in _CUTOFFS},
        precision={k: mean(precision_of, k) for k in _CUTOFFS},
        map_at_100=mean(average_precision_at, 100),
        map_at_r=mean(average_precision_at_r),
        minp=mean(inverse_negative_penalty),
        queries=len(known),
        skipped=len(ranks) - len(known),
        seed=seed,
    )


_DEFINITIONS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]]
_DEFINITIONS = {
    "standard": (average_precision, precision_at),
    "trapezoid": (trapezoid_average_precision, revisitop_precision_at),
}


def _summarise_ties(
    ties: hamming.Ties, average_precision: AveragePrecision, seed: int
) -> Retrieved:
    _check_definition(average_precision)
    ap_of, precision_of = _TIED_DEFINITIONS[average_precision]
    counted = ties.counted()
    known = ap_of(counted)
    ap = np.full(len(ties.relevant), np.nan)
    ap[ties.relevant > 0] = known
    return Retrieved(
        average_precision=average_precision,
        map=float(known.mean()),
        ap=ap,
        recall={k: float(hamming.recall_at(counted, k).mean()) for k in _CUTOFFS},
        precision={k: float(precision_of(counted, k).mean()) for k in _CUTOFFS},
        map_at_100=float(hamming.average_precision_at(counted, 100).mean()),
        map_at_r=float(hamming.average_precision_at_r(counted).mean()),
        minp=float(hamming.inverse_negative_penalty(counted).mean()),
        queries=len(known),
        skipped=len(ap) - len(known),
        seed=seed,
    )


_TIED_DEFINITIONS = {
    "standard": (hamming.average_precision, hamming.precision_at),
    "trapezoid": (hamming.trapezoid_average_precision, hamming.revisitop_precision_at),
}


def _check_definition(average_precision: str) -> None:
    if average_precision not in _DEFINITIONS:
        raise CompatError(
            f"Unknown average precision {average_precision!r}: use 'standard' or 'trapezoid'."
        )


def bootstrap_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean of ``values`` (n,), 1000 seeded resamples.

    A single value is its own interval.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    from scipy.stats import bootstrap  # slow to import

    if len(values) == 1:
        return float(values[0]), float(values[0])
    low, high = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)


@dataclass(frozen=True)
class Score:
    """The three tests of a query model against a gallery model.

    Attributes:
        self_test: M(q,q), query model on both sides.
        cross_test: M(q,g), query model asks, gallery model answers: what asymmetric retrieval is.
        paragon: M(g,g), gallery model on both sides: the usual upper bound.
    """

    self_test: Retrieved
    cross_test: Retrieved
    paragon: Retrieved


def score(
    query_vectors_of_queries: np.ndarray,
    query_vectors_of_gallery: np.ndarray,
    gallery_vectors_of_queries: np.ndarray,
    gallery_vectors_of_gallery: np.ndarray,
    truth: Truth,
    *,
    average_precision: AveragePrecision = "standard",
    metric: Metric = "cosine",
) -> Score:
    """Self-test, cross-test and paragon with one ground truth.

    Args:
        query_vectors_of_queries: (Q, d) queries by the query model.
        query_vectors_of_gallery: (N, d) gallery images by the query model.
        gallery_vectors_of_queries: (Q, d) queries by the gallery model.
        gallery_vectors_of_gallery: (N, d) gallery images by the gallery model.
    """

    def run(queries: np.ndarray, gallery: np.ndarray) -> Retrieved:
        return evaluate(queries, gallery, truth, average_precision=average_precision, metric=metric)

    return Score(
        self_test=run(query_vectors_of_queries, query_vectors_of_gallery),
        cross_test=run(query_vectors_of_queries, gallery_vectors_of_gallery),
        paragon=run(gallery_vectors_of_queries, gallery_vectors_of_gallery),
    )


def top_k(
    queries: np.ndarray,
    gallery: np.ndarray,
    ignored: Truth | Sequence[np.ndarray] | None,
    k: int,
    *,
    metric: Metric = "cosine",
    block: int = 8192,
) -> np.ndarray:
    """Indices of each query's ``k`` most similar gallery entries, best first.

    Args:
        queries: (Q, d).
        gallery: (N, d), may be a memory map.
        ignored: Entries to leave out: a truth (its ignored ones), one index array per query, or
            None.
        k: Length of the lists.

    Returns:
        (Q, k) int64; -1 where fewer than ``k`` entries are left. Equal similarities keep the
        gallery's order.
    """
    queries = np.asarray(queries)
    check_shapes(queries, gallery, metric)
    hidden = ignored.ignored if isinstance(ignored, Truth) else ignored
    directions = query_rows(queries, metric)
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    indices = np.full((len(queries), k), -1, dtype=np.int64)
    for start, vectors in gallery_blocks(gallery, block=block, metric=metric):
        similarities = directions @ vectors.T
        if hidden is not None:
            for query, rows in enumerate(hidden):
                inside = rows[(rows >= start) & (rows < start + len(vectors))]
                similarities[query, inside - start] = -np.inf
        kept = _best_columns(similarities, min(k, len(vectors)))
        merged = np.hstack([best, np.take_along_axis(similarities, kept, axis=1)])
        rows_of = np.hstack([indices, kept + start])
        order = np.argsort(-merged, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(merged, order, axis=1)
        indices = np.take_along_axis(rows_of, order, axis=1)
    return np.where(np.isneginf(best), -1, indices)


def _best_columns(similarities: np.ndarray, k: int) -> np.ndarray:
    """Columns (Q, k), ascending, of the ``k`` largest values per row; the first ones of equals."""
    least = -np.partition(-similarities, k - 1, axis=1)[:, k - 1 : k]
    better, equal = similarities > least, similarities == least
    room = k - better.sum(axis=1, keepdims=True)
    return np.nonzero(better | (equal & (equal.cumsum(axis=1) <= room)))[1].reshape(-1, k)
