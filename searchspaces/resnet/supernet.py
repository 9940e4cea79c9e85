"""One network with shared weights that can act as any architecture of a ResNetSpace."""

from searchspaces.elastic.supernet import StagedSupernet
from searchspaces.resnet.layers import ResNetBackbone
from searchspaces.resnet.space import ResNetSpace


class ResNetSupernet(StagedSupernet):
    """Every architecture of a ResNetSpace; a 1x1 shortcut is an elastic layer like any other."""

    space: ResNetSpace
    backbone: ResNetBackbone
