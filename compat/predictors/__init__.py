"""Scores of a candidate before any alignment training, found by name."""

from compat.predictors.base import Predictor, list_predictors, predict, register_predictor
from compat.predictors.cost import macs, parameters
from compat.predictors.inputs import PredictorInputs
from compat.predictors.maps import LinearMap, Moments, procrustes_map, ridge_map
from compat.predictors.overlap import overlap
from compat.predictors.procrustes import procrustes
from compat.predictors.relations import relations
from compat.predictors.ridge import ridge

__all__ = [
    "LinearMap",
    "Moments",
    "Predictor",
    "PredictorInputs",
    "list_predictors",
    "macs",
    "overlap",
    "parameters",
    "predict",
    "procrustes",
    "procrustes_map",
    "register_predictor",
    "relations",
    "ridge",
    "ridge_map",
]
