"""The two embeddings of the same images that most metrics compare."""

from collections.abc import Iterator

import numpy as np

from compat.errors import CompatError
from compat.evaluation.similarity import check_shapes, unit_rows


def directions(query: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit float32 rows of ``query`` and ``target``, both (n, d) of the same n >= 1 images.

    Raises:
        CompatError: The shapes differ, or a vector is zero or not finite.
    """
    query, target = np.asarray(query), np.asarray(target)
    check_shapes(query, target, "cosine")
    if len(query) != len(target) or not len(query):
        raise CompatError(
            f"There are {len(query)} embeddings by the query model and {len(target)} by the "
            "gallery model: give both of the same images, at least one."
        )
    return unit_rows(query, "query"), unit_rows(target, "target")


def blocks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``size`` rows that cover ``count`` rows."""
    return (slice(start, start + size) for start in range(0, count, size))
