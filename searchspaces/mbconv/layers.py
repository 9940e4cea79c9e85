"""The modules of an inverted-bottleneck network, for a standalone network and a supernet alike.

Every module takes its convolution and BatchNorm classes from `Layers`: ordinary ones make a
standalone network, the elastic ones of `supernet` make a network whose parts can be switched.
"""

from dataclasses import dataclass
from itertools import islice
from typing import cast

from torch import Tensor, nn

from searchspaces.mbconv.plan import BlockPlan, NetworkPlan

ACTIVATIONS = {"relu": nn.ReLU, "hswish": nn.Hardswish}


@dataclass(frozen=True)
class Layers:
    """The classes that a network is made of."""

    conv: type[nn.Conv2d] = nn.Conv2d
    norm: type[nn.BatchNorm2d] = nn.BatchNorm2d


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
        self.activation = ACTIVATIONS[activation](inplace=True) if activation else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(maps)))


class SqueezeExcite(nn.Module):
    """Channel gates from globally pooled maps (Hu et al., CVPR 2018), hard as in MobileNetV3."""

    def __init__(self, width: int, squeeze: int, layers: Layers) -> None:
        super().__init__()
        self.reduce = layers.conv(width, squeeze, 1)
        self.expand = layers.conv(squeeze, width, 1)
        self.activation = nn.ReLU(inplace=True)
        self.gate = nn.Hardsigmoid()

    def forward(self, maps: Tensor) -> Tensor:
        pooled = maps.mean((2, 3), keepdim=True)
        return maps * self.gate(self.expand(self.activation(self.reduce(pooled))))


class Block(nn.Module):
    """Inverted bottleneck (Sandler et al., CVPR 2018), residual where the shapes allow it.

    Args:
        plan: Its widths, kernel and stride.
        layers: The classes of its convolutions and norms.
        quiet: Whether the residual branch starts at zero. Only for blocks that are residual in
            every architecture: elsewhere it would silence the network.
    """

    def __init__(self, plan: BlockPlan, layers: Layers, *, quiet: bool) -> None:
        super().__init__()
        self.residual = plan.residual
        self.expand = ConvNorm(plan.width_in, plan.hidden, layers, activation=plan.activation)
        self.depthwise = ConvNorm(
            plan.hidden,
            plan.hidden,
            layers,
            activation=plan.activation,
            kernel=plan.kernel,
            stride=plan.stride,
            groups=plan.hidden,
        )
        self.excite: nn.Module = (
            SqueezeExcite(plan.hidden, plan.squeeze, layers) if plan.squeeze else nn.Identity()
        )
        self.project = ConvNorm(plan.hidden, plan.width, layers, activation=None)
        if quiet:
            nn.init.zeros_(self.project.norm.weight)

    def forward(self, maps: Tensor) -> Tensor:
        out = self.project(self.excite(self.depthwise(self.expand(maps))))
        return maps + out if self.residual else out


class MBConvBackbone(nn.Module):
    """Normalised images (B, 3, r, r) to pooled features (B, head width)."""

    def __init__(self, plan: NetworkPlan, layers: Layers) -> None:
        super().__init__()
        self.stem = ConvNorm(
            3, plan.stem_width, layers, activation="hswish", kernel=3, stride=plan.stem_stride
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(block, layers, quiet=index > 0) for index, block in enumerate(stage)
            )
            for stage in plan.stages
        )
        self.head = ConvNorm(
            plan.stages[-1][-1].width, plan.head_width, layers, activation="hswish"
        )
        self.depths = [len(stage) for stage in plan.stages]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        for stage, depth in zip(self.stages, self.depths, strict=True):
            for block in islice(cast(nn.ModuleList, stage), depth):
                maps = block(maps)
        return self.head(maps).mean((2, 3))
