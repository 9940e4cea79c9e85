"""Exact ranks of every positive in one pass over the gallery, without sorting it.

The rank of a query's i-th best positive is i plus the number of negatives that stand before it. So
the similarities to the positives come first; then the gallery is streamed in blocks, and of each
block only the similarities that reach the query's weakest positive are sorted and searched. Memory
is a block of vectors and a tile of similarities, whatever the gallery's size. A gallery of one
block has the similarities to the positives in the same tile.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm

from compat.errors import CompatError
from compat.evaluation.similarity import (
    Metric,
    check_shapes,
    gallery_blocks,
    gallery_rows,
    unit_rows,
)
from compat.evaluation.truth import Truth

TIE = 2.0**-19
"""Similarities of unit vectors closer than this are ties: float32 dot products of 64 to 2048
components were measured to be off by up to 3.3 * 2**-22, and both of a comparison may be."""

_SMALL = 16384  # gallery rows below which threads get in each other's way
_HELD = 4096  # positives whose vectors are held at a time
_TILE = 1024  # queries whose similarities to one block are held at a time


def positive_ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    truth: Truth,
    *,
    block: int = 8192,
    metric: Metric = "cosine",
) -> tuple[np.ndarray, ...]:
    """Ranks of each query's positives among the gallery entries that are not ignored.

    Ties are pessimistic: a negative whose similarity is within `TIE` of a positive's (times the
    positive's length when the metric is ``ip``) stands before it, so an embedding that maps
    everything to one point gets the worst ranking, not the best.

    Args:
        queries: (Q, d) floats; only their direction matters.
        gallery: (N, d) float16 or float32, typically a memory map; read once, in order, after the
            rows of the positives.
        truth: Positives and ignored entries per query.
        block: Gallery rows converted to float32 at a time.
        metric: ``cosine``, or ``ip`` for the inner product with gallery vectors as they are.

    Returns:
        Per query the ascending 1-based int64 ranks of its positives, empty without positives.

    Raises:
        CompatError: When shapes, truth and vectors do not fit together, or a vector is zero or not
            finite (names the side and the first such row).
    """
    queries = np.asarray(queries)
    check_shapes(queries, gallery, metric)
    truth.check(queries, gallery)
    if metric == "hamming":
        raise CompatError(
            "Hamming distances tie by the hundred, so positives have no single rank: use "
            "`evaluate`, whose measures are expectations over the order of ties."
        )
    directions = unit_rows(queries, "query")
    streamed = len(gallery) > block
    thresholds = [np.empty(0, dtype=np.float32)] * len(truth)
    if streamed:
        _find_thresholds(thresholds, directions, gallery, truth, metric)
    before = [np.zeros(len(rows), dtype=np.int64) for rows in truth.positives]
    asking = np.array([q for q, rows in enumerate(truth.positives) if len(rows)], dtype=np.int64)
    edges = np.append(np.arange(0, len(gallery), block), len(gallery))
    bounds = _bounds(truth.left_out, edges)
    workers = _cores() if len(gallery) > _SMALL else 1

    def count(queries_of_tile: np.ndarray, tile: np.ndarray, number: int, worker: int) -> None:
        for row in range(worker, len(tile), workers):
            query, similarities = queries_of_tile[row], tile[row]
            first, last = bounds[query][number : number + 2]
            similarities[truth.left_out[query][first:last] - edges[number]] = -np.inf
            values = thresholds[query]
            survivors = similarities.compress(similarities >= values[0])
            survivors.sort()
            before[query] += len(survivors) - survivors.searchsorted(values)

    memory = np.empty((min(_TILE, len(asking)), min(block, len(gallery))), dtype=np.float32)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(gallery), desc="ranking", unit="vectors", delay=2, leave=False) as bar,
    ):
        for number, (_, vectors) in enumerate(gallery_blocks(gallery, block=block, metric=metric)):
            for first in range(0, len(asking), _TILE):
                chunk = asking[first : first + _TILE]
                tile = memory[: len(chunk), : len(vectors)]
                np.matmul(directions[chunk], vectors.T, out=tile)
                if not streamed:
                    _read_thresholds(thresholds, chunk, tile, truth, _slack(vectors, metric))
                list(pool.map(partial(count, chunk, tile, number), range(workers)))
            bar.update(len(vectors))
    places = np.arange(1, max(map(len, before), default=0) + 1)
    return tuple(places[: len(found)] + found[::-1] for found in before)


def _read_thresholds(
    thresholds: list[np.ndarray],
    queries: np.ndarray,
    similarities: np.ndarray,
    truth: Truth,
    slack: np.ndarray,
) -> None:
    """Fill in the thresholds of queries whose similarities (B, N) to all of the gallery are known.

    A threshold is the least similarity that stands before a positive; ascending float32 per query.
    """
    for query, values in zip(queries.tolist(), similarities, strict=True):
        rows = truth.positives[query]
        thresholds[query] = values.take(rows) - slack.take(rows)
        thresholds[query].sort()


def _find_thresholds(
    thresholds: list[np.ndarray],
    directions: np.ndarray,
    gallery: np.ndarray,
    truth: Truth,
    metric: Metric,
) -> None:
    """Fill in the thresholds of all queries; of the gallery only positives are read."""
    sharing: dict[int, list[int]] = {}
    for query, rows in enumerate(truth.positives):
        if len(rows):
            sharing.setdefault(id(rows), []).append(query)
    for members in _in_chunks(list(sharing.values()), truth):
        # queries of one class have nearly the same positives, so each is read once
        needed = np.unique(np.concatenate([truth.positives[each[0]] for each in members]))
        vectors = _positive_rows(gallery, needed, metric)
        slack = _slack(vectors, metric)
        for queries in members:
            rows = np.searchsorted(needed, truth.positives[queries[0]])
            found = directions[queries] @ vectors[rows].T - slack[rows]
            found.sort(axis=1)
            for query, row in zip(queries, found, strict=True):
                thresholds[query] = row


def _slack(vectors: np.ndarray, metric: Metric) -> np.ndarray:
    """(B,) float32: by how much a similarity may be below that of each vector and yet tie it."""
    if metric == "cosine":
        return np.full(len(vectors), TIE, dtype=np.float32)
    return np.float32(TIE) * np.linalg.norm(vectors, axis=1)


def _in_chunks(groups: list[list[int]], truth: Truth) -> Iterator[list[list[int]]]:
    """Cut a list of groups of queries where the positives of a chunk become many."""
    chunk: list[list[int]] = []
    held = 0
    for group in groups:
        chunk.append(group)
        held += len(truth.positives[group[0]])
        if held >= _HELD:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _bounds(
    left_out: tuple[np.ndarray, ...], edges: np.ndarray
) -> list[np.ndarray] | list[tuple[int, int]]:
    """Per query, where each block of the gallery begins among the rows that are no negatives."""
    if len(edges) == 2:  # one block holds them all
        return [(0, len(rows)) for rows in left_out]
    shared = {id(rows): rows for rows in left_out}
    found = {key: np.searchsorted(rows, edges) for key, rows in shared.items()}
    return [found[id(rows)] for rows in left_out]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive_rows(gallery: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    try:
        return gallery_rows(gallery, rows, 0, metric=metric)
    except CompatError:
        for row in rows:  # names the row of the gallery, not of the selection
            gallery_rows(gallery, slice(row, row + 1), int(row), metric=metric)
        raise
