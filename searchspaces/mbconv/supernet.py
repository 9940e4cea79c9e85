"""One network with shared weights that can act as any architecture of an MBConvSpace."""

from searchspaces.elastic.supernet import StagedSupernet
from searchspaces.mbconv.layers import MBConvBackbone


class MBConvSupernet(StagedSupernet):
    """Every architecture of an MBConvSpace; squeeze-and-excitation keeps its weights when off."""

    backbone: MBConvBackbone
