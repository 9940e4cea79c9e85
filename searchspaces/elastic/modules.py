"""Modules of convolutional networks, for a standalone network and a supernet alike.

Every module takes its convolution and BatchNorm classes from `Layers`: `PLAIN` ones make a
standalone network, `ELASTIC` ones a network whose parts can be switched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from searchspaces.elastic.layers import ElasticBatchNorm2d, ElasticConv2d

ACTIVATIONS = {"relu": nn.ReLU, "hswish": nn.Hardswish}
"""By name, the cheapest first."""


@dataclass(frozen=True)
class Layers:
    """The classes that a network is made of."""

    conv: type[nn.Conv2d] = nn.Conv2d
    norm: type[nn.BatchNorm2d] = nn.BatchNorm2d


PLAIN = Layers()
ELASTIC = Layers(ElasticConv2d, ElasticBatchNorm2d)


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation."""

    def __init__(
        self,
        width_in: int,
        width: int,
        layers: Layers,
        *,
        activation: str | None,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = layers.conv(
            width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = layers.norm(width)
        self.activation: nn.Module = nn.Identity()
        if activation:
            self.activation = ACTIVATIONS[activation](inplace=True)

    def activate(
        self, width: int, *, kernel: int = 1, stride: int = 1, activation: str | None = None
    ) -> None:
        """Choose what elastic layers use of themselves, and any other activation."""
        cast(ElasticConv2d, self.conv).activate(width, kernel, stride)
        if activation:
            self.activation = ACTIVATIONS[activation](inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(maps)))


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Fold each BatchNorm of a `ConvNorm` into its convolution, for as long as the context lasts.

    The model computes what it does in evaluation mode, up to rounding, in less time; it cannot be
    trained meanwhile. Other models, and supernets, stay as they are.
    """
    whole = [
        (block, block.conv.weight, block.norm)
        for block in model.modules()
        if isinstance(block, ConvNorm) and type(block.norm) is nn.BatchNorm2d
    ]
    try:
        for block, weight, norm in whole:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            block.conv.weight, block.conv.bias = fuse_conv_bn_weights(
                weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            block.add_module("norm", nn.Identity())
        yield
    finally:
        for block, weight, norm in whole:
            block.conv.weight, block.conv.bias, block.norm = weight, None, norm


class SqueezeExcite(nn.Module):
    """Channel gates from globally pooled maps (Hu et al., CVPR 2018), hard as in MobileNetV3."""

    def __init__(self, width: int, squeeze: int, layers: Layers) -> None:
        super().__init__()
        self.reduce = layers.conv(width, squeeze, 1)
        self.expand = layers.conv(squeeze, width, 1)
        self.activation = nn.ReLU(inplace=True)
        self.gate = nn.Hardsigmoid()
        self.on = True

    def activate(self, width: int, squeeze: int) -> None:
        """Choose what elastic layers use of themselves; no hidden channels let maps pass."""
        self.on = squeeze > 0
        cast(ElasticConv2d, self.reduce).activate(squeeze)
        cast(ElasticConv2d, self.expand).activate(width)

    def forward(self, maps: Tensor) -> Tensor:
        if not self.on:
            return maps
        pooled = maps.mean((2, 3), keepdim=True)
        return maps * self.gate(self.expand(self.activation(self.reduce(pooled))))


def initialise(network: nn.Module) -> None:
    """Draw the weights of all convolutions (He et al., ICCV 2015, over the outputs)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
