"""Networks of choice blocks block by block, for tables of latencies."""

from functools import partial

from torch import nn

from searchspaces.elastic.blocks import Head, Mean, Stem, recipe
from searchspaces.elastic.modules import PLAIN
from searchspaces.elastic.plan import strided
from searchspaces.projection import Projection
from searchspaces.shufflenet.layers import Block, conv_norm
from searchspaces.shufflenet.plan import ConvPlan, NetworkPlan
from searchspaces.space import BlockRecipe


def block_recipes(plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
    """Split a network into stem, the blocks of its layers and head.

    The stem includes the normalisation of the image; the head includes pooling, projection to
    `dimension` and unit length.
    """
    side, stem, head = plan.resolution, plan.stem, plan.head
    recipes = [
        recipe(
            "shufflenet stem",
            (3, side, side),
            partial(_stem, stem),
            side=side,
            width=stem.width,
            stride=stem.stride,
        )
    ]
    side = strided(side, stem.stride)
    for block in plan.blocks:
        make = partial(Block, block, PLAIN)
        shape = (block.width_in, side, side)
        recipes.append(recipe("shufflenet block", shape, make, side=side, **vars(block)))
        side = strided(side, block.stride)
    recipes.append(
        recipe(
            "shufflenet head",
            (head.width_in, side, side),
            partial(_head, head, dimension),
            side=side,
            width_in=head.width_in,
            width=head.width,
            dimension=dimension,
        )
    )
    return recipes


def _stem(plan: ConvPlan) -> nn.Module:
    return Stem(conv_norm(plan, PLAIN))


def _head(plan: ConvPlan, dimension: int) -> nn.Module:
    return Head(conv_norm(plan, PLAIN), Mean(), Projection(plan.width, dimension))
