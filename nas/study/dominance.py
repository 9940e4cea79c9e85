"""When one candidate is better than another under several objectives."""

import numpy as np


def dominated(losses: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
    """Mark what is dominated: by something that is nowhere worse and somewhere better.

    Args:
        losses: (N, M) what is to be minimised, one row per candidate.
        by: (K, M) what they are compared with; by default each other.

    Returns:
        bool (N,).
    """
    by = losses if by is None else by
    as_good = np.ones((len(losses), len(by)), dtype=bool)
    better = np.zeros_like(as_good)
    for mine, other in zip(losses.T, by.T, strict=True):
        as_good &= other <= mine[:, None]
        better |= other < mine[:, None]
    return np.any(as_good & better, axis=1)
