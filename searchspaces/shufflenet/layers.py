"""The modules of a network of choice blocks, for a standalone network and a supernet alike."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from searchspaces.elastic.modules import ConvNorm, Layers, initialise
from searchspaces.shufflenet.plan import BlockPlan, ConvPlan, NetworkPlan


class Block(nn.Module):
    """One kind of block; its plan says which convolutions there are.

    Ma et al., "ShuffleNet V2", ECCV 2018, figure 3 c and d. The channels that a block of stride 1
    takes are every other one of its input, which is the split of that paper after its shuffle, up
    to an order of channels.
    """

    def __init__(self, plan: BlockPlan, layers: Layers) -> None:
        super().__init__()
        self.main = _branch(plan.main, layers)
        self.shortcut = _branch(plan.shortcut, layers) if plan.shortcut else None

    def forward(self, maps: Tensor) -> Tensor:
        if self.shortcut is None:
            return torch.cat((maps[:, ::2], self.main(maps[:, 1::2])), dim=1)
        return torch.cat((self.shortcut(maps), self.main(maps)), dim=1)


class ChoiceBlock(nn.ModuleDict):
    """The blocks that a layer may be, by kind: one in a standalone network, all in a supernet."""

    def __init__(self, plans: Sequence[BlockPlan], layers: Layers) -> None:
        super().__init__({plan.kind: Block(plan, layers) for plan in plans})
        self.kind = plans[0].kind

    def forward(self, maps: Tensor) -> Tensor:
        return self[self.kind](maps)


class ShuffleNetBackbone(nn.Module):
    """Normalised images (B, 3, r, r) to pooled features (B, head width).

    Args:
        plans: Networks of one stem and head; every layer holds its block in each of them.
        layers: The classes of convolutions and norms.
    """

    def __init__(self, plans: Sequence[NetworkPlan], layers: Layers) -> None:
        super().__init__()
        self.stem = conv_norm(plans[0].stem, layers)
        choices = zip(*(plan.blocks for plan in plans), strict=True)
        self.layers = nn.Sequential(*(ChoiceBlock(blocks, layers) for blocks in choices))
        self.head = conv_norm(plans[0].head, layers)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(images))).mean((2, 3))


def _branch(plans: Sequence[ConvPlan], layers: Layers) -> nn.Sequential:
    return nn.Sequential(*(conv_norm(plan, layers) for plan in plans))


def conv_norm(plan: ConvPlan, layers: Layers) -> ConvNorm:
    """Make a planned convolution."""
    return ConvNorm(
        plan.width_in,
        plan.width,
        layers,
        activation="relu" if plan.active else None,
        kernel=plan.kernel,
        stride=plan.stride,
        groups=plan.width if plan.depthwise else 1,
    )
