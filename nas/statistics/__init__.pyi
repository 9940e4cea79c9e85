from .repeats import repeat, repeated
from .ties import Ties, distinguish

__all__ = [
    "Ties",
    "distinguish",
    "repeat",
    "repeated",
]
