from .adaptation import adapt
from .aligner import Aligner
from .fading import fade
from .subnetworks import Sampler
from .supernet import train_supernet

__all__ = [
    "Aligner",
    "Sampler",
    "adapt",
    "fade",
    "train_supernet",
]
