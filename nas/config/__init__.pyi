from .budget import format_macs, parse_macs
from .objectives import COSTS, OBJECTIVES, BudgetConfig, Objective, bounds
from .plugins import import_modules
from .study import (
    FinishTraining,
    PrunedConfig,
    RealignTraining,
    RungConfig,
    ScreenConfig,
    StandaloneConfig,
    StudyConfig,
    SupernetConfig,
    SupernetTraining,
    load_config,
)

__all__ = [
    "BudgetConfig",
    "COSTS",
    "FinishTraining",
    "OBJECTIVES",
    "Objective",
    "PrunedConfig",
    "RealignTraining",
    "RungConfig",
    "ScreenConfig",
    "StandaloneConfig",
    "StudyConfig",
    "SupernetConfig",
    "SupernetTraining",
    "bounds",
    "format_macs",
    "import_modules",
    "load_config",
    "parse_macs",
]
