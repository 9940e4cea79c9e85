"""Compatibility losses, one small file each, found by name."""

from compat.losses.base import (
    CompatibilityLoss,
    LossTerm,
    WeightedSum,
    create_loss,
    list_losses,
    parse_loss,
    register_loss,
)
from compat.losses.csd import CSD
from compat.losses.regression import Regression
from compat.losses.ssp import SSP

__all__ = [
    "CSD",
    "SSP",
    "CompatibilityLoss",
    "LossTerm",
    "Regression",
    "WeightedSum",
    "create_loss",
    "list_losses",
    "parse_loss",
    "register_loss",
]
