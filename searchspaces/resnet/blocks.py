"""Residual networks block by block, for tables of latencies."""

from functools import partial
from itertools import chain

from torch import nn

from searchspaces.elastic.blocks import Head, Mean, Stem, recipe
from searchspaces.elastic.modules import PLAIN
from searchspaces.elastic.plan import strided
from searchspaces.projection import Projection
from searchspaces.resnet.layers import Block, conv_norm
from searchspaces.resnet.plan import ConvPlan, NetworkPlan
from searchspaces.space import BlockRecipe


def block_recipes(plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
    """Split a network into stem, residual blocks and head.

    The stem includes the normalisation of the image and any max-pooling; the head is pooling,
    projection to `dimension` and unit length.
    """
    side = plan.resolution
    recipes = [
        recipe(
            "resnet stem",
            (3, side, side),
            partial(_stem, plan.stem, pooled=plan.pooled),
            side=side,
            conv=_words(plan.stem),
            pooled=plan.pooled,
        )
    ]
    side = strided(strided(side, plan.stem.stride), 2 if plan.pooled else 1)
    for block in chain.from_iterable(plan.stages):
        recipes.append(
            recipe(
                "resnet block",
                (block.convs[0].width_in, side, side),
                partial(Block, block, PLAIN),
                side=side,
                convs="+".join(map(_words, block.convs)),
                shortcut=_words(block.shortcut) if block.shortcut else "identity",
            )
        )
        for conv in block.convs:
            side = strided(side, conv.stride)
    recipes.append(
        recipe(
            "resnet head",
            (plan.features, side, side),
            partial(_head, plan.features, dimension),
            side=side,
            width=plan.features,
            dimension=dimension,
        )
    )
    return recipes


def _stem(plan: ConvPlan, *, pooled: bool) -> nn.Module:
    conv = conv_norm(plan, PLAIN, activation="relu")
    return Stem(conv, nn.MaxPool2d(3, 2, 1)) if pooled else Stem(conv)


def _head(width: int, dimension: int) -> nn.Module:
    return Head(Mean(), Projection(width, dimension))


def _words(conv: ConvPlan) -> str:
    return f"{conv.width_in}-{conv.width}k{conv.kernel}s{conv.stride}"
