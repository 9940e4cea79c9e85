"""Comparable float32 vectors, block by block, from arrays that may lie on disk."""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from compat.errors import CompatError

Metric = Literal["cosine", "ip", "hamming"]


def unit_rows(vectors: np.ndarray, side: str, first_row: int = 0) -> np.ndarray:
    """Float32 copy of ``vectors`` (B, d) with rows of length one.

    Raises:
        CompatError: At a row that is not finite or is zero; ``side`` and ``first_row`` name it.
    """
    rows, norms = _rows_and_norms(vectors, side, first_row)
    rows /= norms[:, None]
    return rows


def sign_rows(vectors: np.ndarray, side: str, first_row: int = 0) -> np.ndarray:
    """Signs of ``vectors`` (B, k) as float32 ±1; zero counts as +1.

    Dot products of signs are k − 2·(Hamming distance), exact in float32 up to k = 2**24.

    Raises:
        CompatError: At a row that is not finite or is zero; ``side`` and ``first_row`` name it.
    """
    rows, _ = _rows_and_norms(vectors, side, first_row)
    return np.where(rows < 0, np.float32(-1), np.float32(1))


def query_rows(queries: np.ndarray, metric: Metric) -> np.ndarray:
    """Queries (Q, d) as float32 rows to compare: signs when hamming, else of length one."""
    return sign_rows(queries, "query") if metric == "hamming" else unit_rows(queries, "query")


def gallery_blocks(
    gallery: np.ndarray, *, block: int, metric: Metric
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, float32 block) over ``gallery`` (N, d), as `gallery_rows` gives them.

    Raises:
        CompatError: At a row that is not finite or is zero.
    """
    for start in range(0, len(gallery), block):
        yield start, gallery_rows(gallery, slice(start, start + block), start, metric=metric)


def gallery_rows(
    gallery: np.ndarray, rows: slice | np.ndarray, first_row: int, *, metric: Metric
) -> np.ndarray:
    """The named rows as float32: of unit length when cosine, signs when hamming."""
    if metric == "hamming":
        return sign_rows(gallery[rows], "gallery", first_row)
    if metric == "cosine":
        return unit_rows(gallery[rows], "gallery", first_row)
    return _rows_and_norms(gallery[rows], "gallery", first_row)[0]


def check_shapes(queries: np.ndarray, gallery: np.ndarray, metric: str) -> None:
    """Raise CompatError unless both are matrices of one width and the metric is known."""
    if metric not in get_args(Metric):
        raise CompatError(
            f"Unknown metric {metric!r}: use 'cosine', 'ip' (inner product) or 'hamming'."
        )
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise CompatError(
            f"Query vectors have shape {tuple(queries.shape)} and gallery vectors "
            f"{tuple(gallery.shape)}: both must be (rows, dimension) with one dimension."
        )


def _rows_and_norms(
    vectors: np.ndarray, side: str, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array(vectors, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    wrong = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(wrong):
        row = int(wrong[0])
        state = "is zero" if norms[row] == 0 else "is not finite"
        raise CompatError(
            f"The {side} vector in row {first_row + row} {state}, so it has no direction to "
            f"compare: repair or remove that row of the {side} vectors."
        )
    return rows, norms
