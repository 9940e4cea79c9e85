"""The modules of an inverted-bottleneck network, for a standalone network and a supernet alike."""

from itertools import islice
from typing import cast

from torch import Tensor, nn

from searchspaces.elastic.modules import ConvNorm, Layers, SqueezeExcite, initialise
from searchspaces.mbconv.plan import BlockPlan, NetworkPlan


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

    def activate(self, plan: BlockPlan) -> None:
        """Follow a plan with elastic layers."""
        self.residual = plan.residual
        self.expand.activate(plan.hidden, activation=plan.activation)
        self.depthwise.activate(
            plan.hidden, kernel=plan.kernel, stride=plan.stride, activation=plan.activation
        )
        if isinstance(self.excite, SqueezeExcite):
            self.excite.activate(plan.hidden, plan.squeeze)
        self.project.activate(plan.width)

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
        initialise(self)

    def activate(self, plan: NetworkPlan) -> None:
        """Follow a plan with elastic layers."""
        self.stem.activate(plan.stem_width, kernel=3, stride=plan.stem_stride)
        for blocks, plans in zip(self.stages, plan.stages, strict=True):
            for block, block_plan in zip(cast(nn.ModuleList, blocks), plans, strict=False):
                cast(Block, block).activate(block_plan)
        self.head.activate(plan.head_width)
        self.depths = [len(plans) for plans in plan.stages]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        for stage, depth in zip(self.stages, self.depths, strict=True):
            for block in islice(cast(nn.ModuleList, stage), depth):
                maps = block(maps)
        return self.head(maps).mean((2, 3))
