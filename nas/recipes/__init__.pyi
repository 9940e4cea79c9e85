from .adapting import AdaptConfig, Adapted, adapt
from .joint import Reference, fuse_jointly, hash_jointly
from .nest import Nest
from .nest_settings import NestConfig
from .prune_run import Pruned, prune
from .prune_settings import PruneConfig
from .schedules import SCHEDULES, Step
from .starting import backbone_study

__all__ = [
    "AdaptConfig",
    "Adapted",
    "Nest",
    "NestConfig",
    "PruneConfig",
    "Pruned",
    "Reference",
    "SCHEDULES",
    "Step",
    "adapt",
    "backbone_study",
    "fuse_jointly",
    "hash_jointly",
    "prune",
]
