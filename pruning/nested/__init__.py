"""One set of weights, many capacities: nested subnetworks of a query model."""

from pruning.nested.gradients import integrate, pcgrad
from pruning.nested.masks import Scores, of_dense, sparsity, top_share
from pruning.nested.model import METHODS, Method, NestedModel, format_capacity, parse_capacity
from pruning.nested.normalisation import norm_parameters
from pruning.nested.slices import channel_groups, cuts, kept, narrow, order_channels, take
from pruning.nested.weighting import UncertaintyWeights

__all__ = [
    "METHODS",
    "Method",
    "NestedModel",
    "Scores",
    "UncertaintyWeights",
    "channel_groups",
    "cuts",
    "format_capacity",
    "integrate",
    "kept",
    "narrow",
    "norm_parameters",
    "of_dense",
    "order_channels",
    "parse_capacity",
    "pcgrad",
    "sparsity",
    "take",
    "top_share",
]
