"""One network with shared weights that can act as any architecture of a ResNetSpace."""

from searchspaces.elastic.supernet import StagedSupernet
from searchspaces.resnet.layers import ResNetBackbone


class ResNetSupernet(StagedSupernet):
    """Every architecture of a ResNetSpace; a 1x1 shortcut is an elastic layer like any other."""

    backbone: ResNetBackbone
