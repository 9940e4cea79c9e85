"""How far two embedding spaces agree, and the criteria by which papers call them compatible."""

from compat.metrics.agreement import Agreement, agreement
from compat.metrics.anchors import anchor_kl, kmeans_anchors
from compat.metrics.cka import linear_cka
from compat.metrics.cosine import mean_cosine
from compat.metrics.criteria import (
    AdvBCTScores,
    Criteria,
    adv_bct,
    bct_criterion,
    cmp_nas_rule,
    criteria,
    update_gain,
)
from compat.metrics.neighbours import largest_k, nearest
from compat.metrics.overlap import neighbourhood_overlap
from compat.metrics.ranking import rank_disagreement
from compat.metrics.shape import Shape, shape
from compat.metrics.top_k import top_k_kl

__all__ = [
    "AdvBCTScores",
    "Agreement",
    "Criteria",
    "Shape",
    "adv_bct",
    "agreement",
    "anchor_kl",
    "bct_criterion",
    "cmp_nas_rule",
    "criteria",
    "kmeans_anchors",
    "largest_k",
    "linear_cka",
    "mean_cosine",
    "nearest",
    "neighbourhood_overlap",
    "rank_disagreement",
    "shape",
    "top_k_kl",
    "update_gain",
]
