from .adaptation import adapt
from .aligner import Aligner
from .fading import fade
from .mapping import Encoded, encode, encoder_of, projected
from .subnetworks import SubnetworkDraws
from .supernet import train_supernet

__all__ = [
    "Aligner",
    "Encoded",
    "SubnetworkDraws",
    "adapt",
    "encode",
    "encoder_of",
    "fade",
    "projected",
    "train_supernet",
]
