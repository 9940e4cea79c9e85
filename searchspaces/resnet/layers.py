"""The modules of a residual network, for a standalone network and a supernet alike."""

from itertools import islice
from typing import cast

from torch import Tensor, nn

from searchspaces.elastic.modules import ConvNorm, Layers, initialise
from searchspaces.resnet.plan import BlockPlan, ConvPlan, NetworkPlan


class Block(nn.Module):
    """Convolutions whose sum with the shortcut is activated (He et al., CVPR 2016).

    The convolutions start at zero by the scale of their last BatchNorm, so that a fresh block
    passes its shortcut on (Goyal et al., arXiv:1706.02677, section 5.1).
    """

    def __init__(self, plan: BlockPlan, layers: Layers) -> None:
        super().__init__()
        *inner, last = plan.convs
        convs = [conv_norm(conv, layers, activation="relu") for conv in inner]
        self.convs = nn.ModuleList([*convs, conv_norm(last, layers, activation=None)])
        self.shortcut: nn.Module = (
            conv_norm(plan.shortcut, layers, activation=None) if plan.shortcut else nn.Identity()
        )
        self.activation = nn.ReLU(inplace=True)
        nn.init.zeros_(cast(ConvNorm, self.convs[-1]).norm.weight)

    def activate(self, plan: BlockPlan) -> None:
        """Follow a plan with elastic layers."""
        for conv, conv_plan in zip(self.convs, plan.convs, strict=True):
            _activate(conv, conv_plan)
        if plan.shortcut:
            _activate(self.shortcut, plan.shortcut)

    def forward(self, maps: Tensor) -> Tensor:
        out = maps
        for conv in self.convs:
            out = conv(out)
        return self.activation(self.shortcut(maps) + out)


class ResNetBackbone(nn.Module):
    """Normalised images (B, 3, r, r) to pooled features (B, width of the last stage)."""

    def __init__(self, plan: NetworkPlan, layers: Layers) -> None:
        super().__init__()
        self.stem = conv_norm(plan.stem, layers, activation="relu")
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.pooled = plan.pooled
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(block, layers) for block in stage) for stage in plan.stages
        )
        self.depths = [len(stage) for stage in plan.stages]
        initialise(self)

    def activate(self, plan: NetworkPlan) -> None:
        """Follow a plan with elastic layers."""
        _activate(self.stem, plan.stem)
        self.pooled = plan.pooled
        for blocks, plans in zip(self.stages, plan.stages, strict=True):
            for block, block_plan in zip(cast(nn.ModuleList, blocks), plans, strict=False):
                cast(Block, block).activate(block_plan)
        self.depths = [len(plans) for plans in plan.stages]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        if self.pooled:
            maps = self.pool(maps)
        for stage, depth in zip(self.stages, self.depths, strict=True):
            for block in islice(cast(nn.ModuleList, stage), depth):
                maps = block(maps)
        return maps.mean((2, 3))


def conv_norm(plan: ConvPlan, layers: Layers, *, activation: str | None) -> ConvNorm:
    """Make a planned convolution."""
    return ConvNorm(
        plan.width_in,
        plan.width,
        layers,
        activation=activation,
        kernel=plan.kernel,
        stride=plan.stride,
    )


def _activate(layer: nn.Module, plan: ConvPlan) -> None:
    cast(ConvNorm, layer).activate(plan.width, kernel=plan.kernel, stride=plan.stride)
