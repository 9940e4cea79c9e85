from .architecture import Architecture
from .batchnorm import recalibrate
from .cost import (
    count_activations,
    count_macs,
    count_parameters,
    int8_bytes,
    macs_by_layer,
    macs_by_part,
)
from .elastic.modules import folded
from .elastic.space import StagedSpace
from .errors import SearchSpaceError
from .mbconv import MBConvSpace, MBConvSupernet
from .onnx_cost import count_onnx_macs
from .parametric import ParametricSpace
from .projection import Lift, Projection
from .query_model import (
    PooledFeatures,
    QueryModel,
    backbone_levels,
    first_levels,
    own_resolution,
    timm_query_model,
)
from .rebuilding import outline, rebuild
from .resnet import ResNetSpace, ResNetSupernet
from .shufflenet import ShuffleNetSpace, ShuffleNetSupernet
from .space import (
    BlockRecipe,
    BlockwiseSpace,
    SearchSpace,
    create_space,
    register_space,
    space_names,
)
from .supernet import ElasticSpace, InheritingSpace, Supernet
from .timing import measure_latency, onnx_latency, time_passes
from .union import PrefixedTrial, UnionSpace
from .vit import ViTSpace, ViTSupernet
from .zoo import TimmSpace

__all__ = [
    "Architecture",
    "BlockRecipe",
    "BlockwiseSpace",
    "ElasticSpace",
    "InheritingSpace",
    "Lift",
    "MBConvSpace",
    "MBConvSupernet",
    "ParametricSpace",
    "PrefixedTrial",
    "Projection",
    "PooledFeatures",
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
    "backbone_levels",
    "count_activations",
    "count_macs",
    "count_onnx_macs",
    "count_parameters",
    "create_space",
    "first_levels",
    "folded",
    "int8_bytes",
    "macs_by_layer",
    "macs_by_part",
    "measure_latency",
    "onnx_latency",
    "outline",
    "own_resolution",
    "rebuild",
    "recalibrate",
    "register_space",
    "space_names",
    "time_passes",
    "timm_query_model",
]
