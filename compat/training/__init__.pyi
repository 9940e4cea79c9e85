from .config import TrainingConfig
from .fit import Fitted, fit

__all__ = [
    "Fitted",
    "TrainingConfig",
    "fit",
]
