from .joint import Reference, fuse_jointly, hash_jointly
from .nest import Nest, NestConfig
from .prune import PruneConfig, prune
from .schedules import SCHEDULES, Step

__all__ = [
    "Nest",
    "NestConfig",
    "PruneConfig",
    "Reference",
    "SCHEDULES",
    "Step",
    "fuse_jointly",
    "hash_jointly",
    "prune",
]
