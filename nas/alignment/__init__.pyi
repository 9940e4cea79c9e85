from .adaptation import adapt
from .aligner import Aligner
from .fading import fade
from .subnetworks import SubnetworkDraws
from .supernet import train_supernet

__all__ = [
    "Aligner",
    "SubnetworkDraws",
    "adapt",
    "fade",
    "train_supernet",
]
