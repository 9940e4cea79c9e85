"""An elastic space of residual networks and its weight-sharing supernet."""

from searchspaces.resnet.space import ResNetSpace, Stage
from searchspaces.resnet.supernet import ResNetSupernet

__all__ = ["ResNetSpace", "ResNetSupernet", "Stage"]
