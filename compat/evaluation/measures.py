"""Measures of one query, as functions of the ascending 1-based ranks of its positives.

Every function takes ``ranks`` (P,) integers with P >= 1. Three different things are called mAP@R in
the literature; `average_precision_at` and `average_precision_at_r` are named after what they
divide by.
"""

import numpy as np


def average_precision(ranks: np.ndarray) -> float:
    """Mean over all positives of the precision at their rank.

    Source: Manning, Raghavan, Schuetze, "Introduction to Information Retrieval", 2008, eq. 8.8.
    """
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def trapezoid_average_precision(ranks: np.ndarray) -> float:
    """Area under the precision-recall curve by the trapezoid rule.

    Each positive adds the mean of the precision just before it and at it; before the first rank
    precision is 1. Source: Philbin et al., "Object Retrieval with Large Vocabularies", CVPR 2007,
    as used by Radenovic et al., "Revisiting Oxford and Paris", CVPR 2018.
    """
    found = np.arange(1, len(ranks) + 1)
    ahead = ranks - 1
    just_before = np.where(ahead == 0, 1.0, (found - 1) / np.maximum(ahead, 1))
    return float(np.mean((just_before + found / ranks) / 2))


def average_precision_at(ranks: np.ndarray, k: int) -> float:
    """Average precision of the first ``k`` ranks, divided by min(P, k).

    Source: Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, section 4 (mAP@100).
    """
    hits = ranks[ranks <= k]
    return float(np.sum(np.arange(1, len(hits) + 1) / hits) / min(len(ranks), k))


def average_precision_at_r(ranks: np.ndarray) -> float:
    """Average precision of the first R ranks, divided by R, the number of positives.

    Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020, eq. 2 (MAP@R).
    """
    return average_precision_at(ranks, len(ranks))


def precision_at(ranks: np.ndarray, k: int) -> float:
    """Share of positives among the first ``k`` ranks.

    Source: Manning et al. 2008, section 8.4 (precision at k).
    """
    return float(np.sum(ranks <= k) / k)


def revisitop_precision_at(ranks: np.ndarray, k: int) -> float:
    """Share of positives among the first min(k, rank of the last positive) ranks.

    Source: Radenovic et al. 2018, the published evaluation (mP@k).
    """
    return precision_at(ranks, min(k, int(ranks[-1])))


def recall_at(ranks: np.ndarray, k: int) -> float:
    """1 if a positive is among the first ``k`` ranks, else 0.

    This is Recall@k of metric learning and the cumulative matching characteristic (CMC) of
    re-identification, not the share of all positives found. Source: Jegou et al., "Product
    Quantization for Nearest Neighbor Search", TPAMI 2011; Zheng et al., ICCV 2015.
    """
    return float(ranks[0] <= k)


def inverse_negative_penalty(ranks: np.ndarray) -> float:
    """Number of positives over the rank of the last one (INP; its mean is mINP).

    Source: Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021, eq. 8.
    """
    return float(len(ranks) / ranks[-1])
