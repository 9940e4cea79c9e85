"""A space of ShuffleNetV2-like choice blocks and its weight-sharing supernet."""

from searchspaces.shufflenet.space import ShuffleNetSpace
from searchspaces.shufflenet.supernet import ShuffleNetSupernet

__all__ = ["ShuffleNetSpace", "ShuffleNetSupernet"]
