"""One network with shared weights that can act as any architecture of a ShuffleNetSpace."""

from typing import Protocol, cast

from searchspaces.architecture import Architecture
from searchspaces.elastic.modules import ELASTIC, ConvNorm
from searchspaces.projection import Projection
from searchspaces.shufflenet.layers import Block, ChoiceBlock, ShuffleNetBackbone
from searchspaces.shufflenet.plan import ConvPlan, NetworkPlan
from searchspaces.supernet import ElasticSpace, Supernet


class ChoicePlans(ElasticSpace, Protocol):
    """What the supernet asks of its space."""

    def full_plans(self) -> list[NetworkPlan]:
        """Return one network per kind of block, with the most channels everywhere."""

    def plan(self, architecture: Architecture) -> NetworkPlan:
        """Work out an architecture's layers."""


class ShuffleNetSupernet(Supernet):
    """A query model that is every architecture of a space at once, one at a time.

    Every layer holds all kinds of blocks, each with weights of its own (Guo et al., "Single path
    one-shot", ECCV 2020). Where a space has several ratios, a block's hidden channels are the
    first ones of its widest form. It starts as the largest architecture.

    Args:
        space: The architectures.
        dimension: Number of dimensions of the gallery space.
    """

    backbone: ShuffleNetBackbone
    space: ChoicePlans

    def __init__(self, space: ChoicePlans, dimension: int) -> None:
        plans = space.full_plans()
        super().__init__(
            ShuffleNetBackbone(plans, ELASTIC),
            Projection(plans[0].features, dimension),
            resolution=plans[0].resolution,
        )
        self.space = space
        self.activate(space.largest())

    def activate(self, architecture: Architecture) -> None:
        """Act as this architecture from now on; images have to come at its resolution.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        plan = self.space.plan(architecture)
        _activate(self.backbone.stem, plan.stem)
        for layer, block in zip(self.backbone.layers, plan.blocks, strict=True):
            choice = cast(ChoiceBlock, layer)
            choice.kind = block.kind
            main = cast(Block, choice[block.kind]).main
            for conv, conv_plan in zip(main, block.main, strict=True):
                _activate(cast(ConvNorm, conv), conv_plan)
        self.resolution = plan.resolution
        self.architecture = architecture


def _activate(layer: ConvNorm, plan: ConvPlan) -> None:
    layer.activate(plan.width, kernel=plan.kernel, stride=plan.stride)
