"""One set of weights, many capacities: nested subnetworks of a query model."""

from pruning.nested.gradients import integrate, pcgrad
from pruning.nested.masks import Scores, of_dense, sparsity, top_share
from pruning.nested.model import METHODS, Method, NestedModel, format_capacity, parse_capacity
from pruning.nested.normalisation import norm_parameters
from pruning.nested.slices import (
    Cut,
    bound,
    by_importance,
    channel_groups,
    cuts,
    kept,
    moved,
    narrow,
    order_channels,
    reorder,
    take,
    tensors_of,
)
from pruning.nested.weighting import UncertaintyWeights

__all__ = [
    "METHODS",
    "Cut",
    "Method",
    "NestedModel",
    "Scores",
    "UncertaintyWeights",
    "bound",
    "by_importance",
    "channel_groups",
    "cuts",
    "format_capacity",
    "integrate",
    "kept",
    "moved",
    "narrow",
    "norm_parameters",
    "of_dense",
    "order_channels",
    "parse_capacity",
    "pcgrad",
    "reorder",
    "sparsity",
    "take",
    "tensors_of",
    "top_share",
]
