"""What elastic spaces have in common: layers that hold smaller layers, choices, plans, blocks."""

from searchspaces.elastic.layers import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayerNorm,
    ElasticLinear,
    fold_kernels,
    shared_part,
)

__all__ = [
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticLayerNorm",
    "ElasticLinear",
    "fold_kernels",
    "shared_part",
]
