"""Cutting a query model without leaving the gallery space."""

from pruning.cutting import CRITERIA, cut
from pruning.errors import PruningError
from pruning.recipe import load_model, save_model
from pruning.space import PrunedSpace
from pruning.stages import stages

__all__ = [
    "CRITERIA",
    "PrunedSpace",
    "PruningError",
    "cut",
    "load_model",
    "save_model",
    "stages",
]
