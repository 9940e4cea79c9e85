"""Compatibility losses, one small file each, found by name."""

from compat.losses.advbct import AdvBCT
from compat.losses.aff import AFF
from compat.losses.aml import AML
from compat.losses.base import (
    CompatibilityLoss,
    LossTerm,
    WeightedSum,
    create_loss,
    list_losses,
    parse_loss,
    register_loss,
    required_by,
)
from compat.losses.bct import BCT, BCTLwF
from compat.losses.csch import CSCH
from compat.losses.csd import CSD
from compat.losses.d3still import D3still
from compat.losses.fitnet import FitNet
from compat.losses.hvs import HVS
from compat.losses.lce import LCE
from compat.losses.logit_kd import LogitKD
from compat.losses.ndpp import NDPP
from compat.losses.odpp import ODPP
from compat.losses.raml import RAML
from compat.losses.regression import Regression
from compat.losses.rkd import RKD
from compat.losses.rop import ROP
from compat.losses.ssp import SSP

__all__ = [
    "AFF",
    "AML",
    "BCT",
    "CSCH",
    "CSD",
    "HVS",
    "LCE",
    "NDPP",
    "ODPP",
    "RAML",
    "RKD",
    "ROP",
    "SSP",
    "AdvBCT",
    "BCTLwF",
    "CompatibilityLoss",
    "D3still",
    "FitNet",
    "LogitKD",
    "LossTerm",
    "Regression",
    "WeightedSum",
    "create_loss",
    "list_losses",
    "parse_loss",
    "register_loss",
    "required_by",
]
