"""Search studies: propose, align, score, keep the front, export, profile, report."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.config import StudyConfig, load_config
    from nas.errors import StudyError
    from nas.exporting import best_under, export
    from nas.profiling import profile
    from nas.reporting import report
    from nas.run import Run
    from nas.study import search

_HOMES = {
    "Run": "nas.run",
    "StudyConfig": "nas.config",
    "StudyError": "nas.errors",
    "best_under": "nas.exporting",
    "export": "nas.exporting",
    "load_config": "nas.config",
    "profile": "nas.profiling",
    "report": "nas.reporting",
    "search": "nas.study",
}

__all__ = [
    "Run",
    "StudyConfig",
    "StudyError",
    "best_under",
    "export",
    "load_config",
    "profile",
    "report",
    "search",
]


def __getattr__(name: str) -> Any:
    # The command line imports this package; torch and Optuna wait until they are used.
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
