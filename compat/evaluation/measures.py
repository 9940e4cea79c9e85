"""Measures of queries, as functions of the ascending 1-based ranks of their positives.

Every function takes ``ranks`` (..., P) integers with P >= 1, the positives of one query along the
last axis, and returns float64 (...). Three different things are called mAP@R in
the literature; `average_precision_at` and `average_precision_at_r` are named after what they
divide by.
"""

import numpy as np


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Mean over all positives of the precision at their rank.

    Source: Manning, Raghavan, Schuetze, "Introduction to Information Retrieval", 2008, eq. 8.8.
    """
    return np.mean(_found(ranks) / ranks, axis=-1)


def trapezoid_average_precision(ranks: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve by the trapezoid rule.

    Each positive adds the mean of the precision just before it and at it; before the first rank
    precision is 1. Source: Philbin et al., "Object Retrieval with Large Vocabularies", CVPR 2007,
    as used by Radenovic et al., "Revisiting Oxford and Paris", CVPR 2018.
    """
    found, ahead = _found(ranks), ranks - 1
    just_before = np.where(ahead == 0, 1.0, (found - 1) / np.maximum(ahead, 1))
    return np.mean((just_before + found / ranks) / 2, axis=-1)


def average_precision_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """Average precision of the first ``k`` ranks, divided by min(P, k).

    Source: Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, section 4 (mAP@100).
    """
    precisions = np.where(ranks <= k, _found(ranks) / ranks, 0.0)
    return np.sum(precisions, axis=-1) / min(ranks.shape[-1], k)


def average_precision_at_r(ranks: np.ndarray) -> np.ndarray:
    """Average precision of the first R ranks, divided by R, the number of positives.

    Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020, eq. 2 (MAP@R).
    """
    return average_precision_at(ranks, ranks.shape[-1])


def precision_at(ranks: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Share of positives among the first ``k`` ranks; ``k`` may be one number for each query.

    Source: Manning et al. 2008, section 8.4 (precision at k).
    """
    return np.sum(ranks <= np.asarray(k)[..., None], axis=-1) / k


def revisitop_precision_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """Share of positives among the first min(k, rank of the last positive) ranks.

    Source: Radenovic et al. 2018, the published evaluation (mP@k).
    """
    return precision_at(ranks, np.minimum(k, ranks[..., -1]))


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 if a positive is among the first ``k`` ranks, else 0.

    This is Recall@k of metric learning and the cumulative matching characteristic (CMC) of
    re-identification, not the share of all positives found. Source: Jegou et al., "Product
    Quantization for Nearest Neighbor Search", TPAMI 2011; Zheng et al., ICCV 2015.
    """
    return np.asarray(ranks[..., 0] <= k, dtype=np.float64)


def inverse_negative_penalty(ranks: np.ndarray) -> np.ndarray:
    """Number of positives over the rank of the last one (INP; its mean is mINP).

    Source: Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021, eq. 8.
    """
    return ranks.shape[-1] / ranks[..., -1]


def _found(ranks: np.ndarray) -> np.ndarray:
    """How many positives there are up to each."""
    return np.arange(1, ranks.shape[-1] + 1)
