"""What a query network may look like, and what it costs."""

from searchspaces.architecture import Architecture
from searchspaces.batchnorm import recalibrate
from searchspaces.cost import (
    count_activations,
    count_macs,
    count_parameters,
    int8_bytes,
    macs_by_layer,
    measure_latency,
    time_passes,
)
from searchspaces.elastic.modules import folded
from searchspaces.elastic.space import StagedSpace
from searchspaces.errors import SearchSpaceError
from searchspaces.mbconv import MBConvSpace, MBConvSupernet
from searchspaces.parametric import ParametricSpace
from searchspaces.query_model import Projection, QueryModel, own_resolution, timm_query_model
from searchspaces.rebuilding import rebuild
from searchspaces.resnet import ResNetSpace, ResNetSupernet
from searchspaces.shufflenet import ShuffleNetSpace, ShuffleNetSupernet
from searchspaces.space import (
    BlockRecipe,
    BlockwiseSpace,
    SearchSpace,
    create_space,
    register_space,
    space_names,
)
from searchspaces.supernet import ElasticSpace, Supernet
from searchspaces.union import PrefixedTrial, UnionSpace
from searchspaces.vit import ViTSpace, ViTSupernet
from searchspaces.zoo import TimmSpace

__all__ = [
    "Architecture",
    "BlockRecipe",
    "BlockwiseSpace",
    "ElasticSpace",
    "MBConvSpace",
    "MBConvSupernet",
    "ParametricSpace",
    "PrefixedTrial",
    "Projection",
    "QueryModel",
    "ResNetSpace",
    "ResNetSupernet",
    "SearchSpace",
    "SearchSpaceError",
    "ShuffleNetSpace",
    "ShuffleNetSupernet",
    "StagedSpace",
    "Supernet",
    "TimmSpace",
    "UnionSpace",
    "ViTSpace",
    "ViTSupernet",
    "count_activations",
    "count_macs",
    "count_parameters",
    "create_space",
    "folded",
    "int8_bytes",
    "macs_by_layer",
    "measure_latency",
    "own_resolution",
    "rebuild",
    "recalibrate",
    "register_space",
    "space_names",
    "time_passes",
    "timm_query_model",
]
