"""Inverted-bottleneck networks block by block, for tables of latencies."""

from functools import partial
from itertools import chain

from torch import nn

from searchspaces.elastic.blocks import Head, Mean, Stem, recipe
from searchspaces.elastic.modules import PLAIN, ConvNorm
from searchspaces.elastic.plan import strided
from searchspaces.mbconv.layers import Block
from searchspaces.mbconv.plan import NetworkPlan
from searchspaces.projection import Projection
from searchspaces.space import BlockRecipe


def block_recipes(plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
    """Split a network into stem, inverted bottlenecks and head.

    The stem includes the normalisation of the image; the head includes pooling, projection to
    `dimension` and unit length.
    """
    side, width = plan.resolution, plan.stem_width
    recipes = [
        recipe(
            "mbconv stem",
            (3, side, side),
            partial(_stem, width, plan.stem_stride),
            side=side,
            width=width,
            stride=plan.stem_stride,
        )
    ]
    side = strided(side, plan.stem_stride)
    for block in chain.from_iterable(plan.stages):
        make = partial(Block, block, PLAIN, quiet=False)
        recipes.append(recipe("mbconv block", (width, side, side), make, side=side, **vars(block)))
        side, width = strided(side, block.stride), block.width
    recipes.append(
        recipe(
            "mbconv head",
            (width, side, side),
            partial(_head, width, plan.head_width, dimension),
            side=side,
            width_in=width,
            width=plan.head_width,
            dimension=dimension,
        )
    )
    return recipes


def _stem(width: int, stride: int) -> nn.Module:
    return Stem(ConvNorm(3, width, PLAIN, activation="hswish", kernel=3, stride=stride))


def _head(width_in: int, width: int, dimension: int) -> nn.Module:
    conv = ConvNorm(width_in, width, PLAIN, activation="hswish")
    return Head(conv, Mean(), Projection(width, dimension))
