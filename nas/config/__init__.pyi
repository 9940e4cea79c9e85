from .budget import format_macs, parse_macs
from .plugins import import_modules
from .study import (
    BudgetConfig,
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
    "FinishTraining",
    "PrunedConfig",
    "RealignTraining",
    "RungConfig",
    "ScreenConfig",
    "StandaloneConfig",
    "StudyConfig",
    "SupernetConfig",
    "SupernetTraining",
    "format_macs",
    "import_modules",
    "load_config",
    "parse_macs",
]
