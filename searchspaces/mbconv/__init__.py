"""An elastic space of inverted-bottleneck networks and its weight-sharing supernet."""

from searchspaces.mbconv.space import MBConvSpace, Stage
from searchspaces.mbconv.supernet import MBConvSupernet

__all__ = ["MBConvSpace", "MBConvSupernet", "Stage"]
