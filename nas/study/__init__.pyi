from .exports import best_under, export
from .front import Record, pareto_front
from .held_out import measured_on_test
from .run import Run
from .trials import search

__all__ = [
    "Record",
    "Run",
    "best_under",
    "export",
    "measured_on_test",
    "pareto_front",
    "search",
]
