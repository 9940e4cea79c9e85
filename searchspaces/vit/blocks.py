"""Transformers block by block, for tables of latencies."""

from functools import partial

from torch import nn

from searchspaces.elastic.blocks import Head, Mean, recipe
from searchspaces.elastic.blocks import Stem as NormalisingStem
from searchspaces.projection import Projection
from searchspaces.space import BlockRecipe
from searchspaces.vit.layers import PLAIN, Block, Stem
from searchspaces.vit.plan import NetworkPlan, StemPlan


def block_recipes(plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
    """Split a network into stem, blocks and head.

    The stem includes the normalisation of the image; the head is the mean over the tokens, the
    last LayerNorm, projection to `dimension` and unit length.
    """
    tokens = (plan.side, plan.side, plan.width)
    return [
        recipe(
            "vit stem",
            (3, plan.resolution, plan.resolution),
            partial(_stem, plan.stem, plan.width),
            side=plan.resolution,
            patch=plan.stem.patch,
            convs="-".join(map(str, plan.stem.widths)) or "none",
            width=plan.width,
        ),
        *(
            recipe("vit block", tokens, partial(Block, block, PLAIN), side=plan.side, **vars(block))
            for block in plan.blocks
        ),
        recipe(
            "vit head",
            tokens,
            partial(_head, plan.width, dimension),
            side=plan.side,
            width=plan.width,
            dimension=dimension,
        ),
    ]


def _stem(plan: StemPlan, width: int) -> nn.Module:
    return NormalisingStem(Stem(plan, width, PLAIN))


def _head(width: int, dimension: int) -> nn.Module:
    return Head(Mean((1, 2)), nn.LayerNorm(width), Projection(width, dimension))
