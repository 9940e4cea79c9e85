"""What a query network may look like, and what it costs."""

from searchspaces.architecture import Architecture
from searchspaces.batchnorm import recalibrate
from searchspaces.cost import count_macs, count_parameters, macs_by_layer, measure_latency
from searchspaces.errors import SearchSpaceError
from searchspaces.mbconv import MBConvSpace, MBConvSupernet
from searchspaces.query_model import QueryModel, own_resolution, timm_query_model
from searchspaces.rebuilding import rebuild
from searchspaces.space import SearchSpace, create_space, register_space, space_names

__all__ = [
    "Architecture",
    "MBConvSpace",
    "MBConvSupernet",
    "QueryModel",
    "SearchSpace",
    "SearchSpaceError",
    "count_macs",
    "count_parameters",
    "create_space",
    "macs_by_layer",
    "measure_latency",
    "own_resolution",
    "rebuild",
    "recalibrate",
    "register_space",
    "space_names",
    "timm_query_model",
]
