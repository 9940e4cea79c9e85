from .fitting import MAPS, FittedMap, MapName, fit_map
from .low_rank import low_rank_factors
from .pairs import Pairs, affine

__all__ = [
    "FittedMap",
    "MAPS",
    "MapName",
    "Pairs",
    "affine",
    "fit_map",
    "low_rank_factors",
]
