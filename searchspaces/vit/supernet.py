"""One network with shared weights that can act as any architecture of a ViTSpace."""

from typing import Protocol, cast

from searchspaces.architecture import Architecture
from searchspaces.elastic import ElasticConv2d, ElasticLinear
from searchspaces.projection import Projection
from searchspaces.supernet import ElasticSpace, Supernet
from searchspaces.vit.layers import ELASTIC, Block, Stem, ViTBackbone
from searchspaces.vit.plan import BlockPlan, NetworkPlan, StemPlan


class EntangledPlans(ElasticSpace, Protocol):
    """What the supernet asks of its space."""

    def full_plan(self) -> NetworkPlan:
        """Return the plan whose every block holds that block of every architecture."""

    def stem_plans(self) -> list[StemPlan]:
        """List the stems of all architectures."""

    def plan(self, architecture: Architecture) -> NetworkPlan:
        """Work out an architecture's layers."""


class ViTSupernet(Supernet):
    """A query model that is every architecture of a space at once, one at a time.

    Narrow layers are the first channels of wide ones, few heads the first of many, shallow networks
    the first blocks of deep ones (weight entanglement; Chen et al., "AutoFormer", ICCV 2021).
    Every patch size and kind of stem has weights of its own; all share the blocks. It starts as the
    largest architecture.

    Args:
        space: The architectures.
        dimension: Number of dimensions of the gallery space.
    """

    backbone: ViTBackbone
    space: EntangledPlans

    def __init__(self, space: EntangledPlans, dimension: int) -> None:
        plan = space.full_plan()
        projection = Projection(plan.width, dimension)
        projection.linear = ElasticLinear(plan.width, dimension)
        backbone = ViTBackbone(plan, ELASTIC, space.stem_plans())
        super().__init__(backbone, projection, resolution=plan.resolution)
        self.space = space
        self.activate(space.largest())

    def activate(self, architecture: Architecture) -> None:
        """Act as this architecture from now on; images have to come at its resolution.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        plan = self.space.plan(architecture)
        backbone = self.backbone
        stem = cast(Stem, backbone.stems[plan.stem.name])
        cast(ElasticConv2d, stem.embed).activate(plan.width)
        for block, block_plan in zip(backbone.blocks, plan.blocks, strict=False):
            _activate_block(cast(Block, block), block_plan)
        backbone.stem = plan.stem.name
        backbone.depth = len(plan.blocks)
        self.resolution = plan.resolution
        self.architecture = architecture


def _activate_block(block: Block, plan: BlockPlan) -> None:
    cast(ElasticConv2d, block.position).activate(plan.width, kernel=3)
    block.attention.num_heads = plan.heads
    cast(ElasticLinear, block.attention.qkv).activate(3 * plan.attended)
    cast(ElasticLinear, block.attention.proj).activate(plan.width)
    cast(ElasticLinear, block.expand).activate(plan.hidden)
    cast(ElasticLinear, block.reduce).activate(plan.width)
