from .candidates.predicting import predictions
from .config.study import StudyConfig, load_config
from .deployment.compare import compare_files
from .deployment.profiles import profile
from .errors import StudyError
from .recipes.adapting import AdaptConfig, adapt
from .recipes.prune_run import prune
from .recipes.prune_settings import PruneConfig
from .recipes.starting import backbone_study
from .reporting.page import report
from .statistics.repeats import repeat
from .statistics.ties import distinguish
from .study.exports import best_under, export
from .study.run import Run
from .study.trials import search

__all__ = [
    "AdaptConfig",
    "PruneConfig",
    "Run",
    "StudyConfig",
    "StudyError",
    "adapt",
    "backbone_study",
    "best_under",
    "compare_files",
    "distinguish",
    "export",
    "load_config",
    "predictions",
    "profile",
    "prune",
    "repeat",
    "report",
    "search",
]
