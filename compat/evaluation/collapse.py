"""Embeddings of query models that have collapsed, which are scored like any others."""

import numpy as np

_ALIKE = 1e-5  # largest 1 - cosine of vectors that no ranking can tell apart


def directed(vectors: np.ndarray) -> np.ndarray:
    """Give zero vectors, which have no direction to compare, one common direction.

    A network whose last activations are all zero maps its images to zero. Rankings need a
    direction; sharing one, such images cannot be told from each other, which is what they deserve.

    Args:
        vectors: Embeddings (N, d); they are not changed.

    Returns:
        The same with every zero row as the unit vector of equal components. Rows that are not
        finite stay, for whoever ranks them to refuse.
    """
    zero = ~vectors.any(axis=1)
    if not zero.any():
        return vectors
    found = vectors.copy()
    found[zero] = vectors.shape[1] ** -0.5
    return found


def indistinct(vectors: np.ndarray) -> int:
    """Count embeddings (N, d) that say nothing of their image: zeros, or all if they are alike."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = int((lengths == 0).sum())
    units = vectors[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    alike = len(units) > 1 and bool((units @ units[0] > 1 - _ALIKE).all())
    return len(vectors) if alike else zero
