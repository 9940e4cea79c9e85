"""Cutting a query model without leaving the gallery space."""

import searchspaces.support.process  # noqa: F401  before torch is loaded
from pruning.cutting import check_prunable, cut
from pruning.elastic import TimmElasticSpace
from pruning.errors import PruningError
from pruning.families import SUPPORTED
from pruning.growing import fading, removed_weights
from pruning.importance import CRITERIA, NEEDS_LOSS, BatchLoss, replayed
from pruning.kept import kept_channels
from pruning.reaching import Target, check_reachable, figure, parse_target, reach
from pruning.recipe import load_model, save_model
from pruning.space import PrunedSpace
from pruning.stages import stages

__all__ = [
    "CRITERIA",
    "NEEDS_LOSS",
    "BatchLoss",
    "SUPPORTED",
    "PrunedSpace",
    "PruningError",
    "Target",
    "TimmElasticSpace",
    "check_prunable",
    "check_reachable",
    "cut",
    "fading",
    "figure",
    "kept_channels",
    "load_model",
    "parse_target",
    "reach",
    "removed_weights",
    "replayed",
    "save_model",
    "stages",
]
