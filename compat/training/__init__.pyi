from .alignment import Losses, align
from .average import MovingAverage
from .best import Best, Fitted
from .checkpoint import Checkpoint, Stateful
from .config import TrainingConfig
from .descent import Descent
from .loop import Course, fit

__all__ = [
    "Best",
    "Checkpoint",
    "Course",
    "Descent",
    "Fitted",
    "Losses",
    "MovingAverage",
    "Stateful",
    "TrainingConfig",
    "align",
    "fit",
]
