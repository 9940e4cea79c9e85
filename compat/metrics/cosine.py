"""Mean cosine of the two embeddings of an image."""

import numpy as np

from compat.metrics.pairs import directions


def mean_cosine(query: np.ndarray, target: np.ndarray) -> float:
    """Mean of cos(q, g) over images, in [-1, 1]; 1 where both models embed alike.

    Args:
        query: (n, d) embeddings by the query model.
        target: (n, d) embeddings of the same images by the gallery model.

    Raises:
        CompatError: The shapes differ, or a vector is zero or not finite.
    """
    q, g = directions(query, target)
    return float(np.einsum("ij,ij->i", q, g, dtype=np.float64).mean())
