"""How much of two neighbour lists is common."""

import numpy as np

from compat.errors import CompatError


def neighbourhood_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Mean share of entries that two neighbour lists of the same images have in common.

    overlap@k = mean over images of |A ∩ B| / k, in [0, 1]. Random lists of a gallery of N entries
    give k / N. With the lists of the gallery by q and by g it says how far both find the same.

    Args:
        first: (n, k) gallery indices, without repetition in a row (see `nearest`).
        second: (n, k) the same by the other embedding.

    Raises:
        CompatError: The shapes differ or are empty.
    """
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise CompatError(
            f"Neighbour lists of shapes {first.shape} and {second.shape} cannot be compared: give "
            "two lists (images, k) of the same images."
        )
    lists = zip(first, second, strict=True)
    common = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in lists]
    return float(np.mean(common) / first.shape[1])
