"""Search studies: propose, align, score, keep the front, export, profile, report."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.comparing import compare_files
    from nas.config import StudyConfig, load_config
    from nas.distinguishing import distinguish
    from nas.errors import StudyError
    from nas.exporting import best_under, export
    from nas.predicting import predictions
    from nas.profiling import profile
    from nas.repeating import repeat
    from nas.reporting import report
    from nas.run import Run
    from nas.shrinking import PruneConfig, prune
    from nas.study import search

_HOMES = {
    "PruneConfig": "nas.shrinking",
    "Run": "nas.run",
    "StudyConfig": "nas.config",
    "StudyError": "nas.errors",
    "best_under": "nas.exporting",
    "compare_files": "nas.comparing",
    "distinguish": "nas.distinguishing",
    "export": "nas.exporting",
    "load_config": "nas.config",
    "predictions": "nas.predicting",
    "profile": "nas.profiling",
    "prune": "nas.shrinking",
    "repeat": "nas.repeating",
    "report": "nas.reporting",
    "search": "nas.study",
}

__all__ = [
    "PruneConfig",
    "Run",
    "StudyConfig",
    "StudyError",
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


def __getattr__(name: str) -> Any:
    # The command line imports this package; torch and Optuna wait until they are used.
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
