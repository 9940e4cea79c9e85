"""Inverted-bottleneck networks block by block, for tables of latencies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, product
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.elastic.modules import PLAIN, ConvNorm
from searchspaces.elastic.plan import strided
from searchspaces.mbconv.layers import Block
from searchspaces.mbconv.plan import BlockPlan, NetworkPlan
from searchspaces.query_model import Projection
from searchspaces.space import BlockRecipe

if TYPE_CHECKING:
    from searchspaces.mbconv.space import MBConvSpace


def block_recipes(plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
    """Split a network into stem, inverted bottlenecks and head.

    The stem includes the normalisation of the image; the head includes pooling, projection to
    `dimension` and unit length.
    """
    side = plan.resolution
    recipes = [_stem(side, plan.stem_width, plan.stem_stride)]
    side = strided(side, plan.stem_stride)
    for block in chain.from_iterable(plan.stages):
        recipes.append(_block(side, block))
        side = strided(side, block.stride)
    recipes.append(_head(side, plan.stages[-1][-1].width, plan.head_width, dimension))
    return recipes


def every_block_recipe(space: MBConvSpace, dimension: int) -> list[BlockRecipe]:
    """Return each block of the space once.

    Only the parameters that decide on a block are varied for it, all others stay at the largest
    architecture, whose depths include all lesser ones.
    """
    axes = {name: parameters.grid(name, each) for name, each in space.distributions().items()}
    largest = space.largest().params
    found: dict[str, BlockRecipe] = {}
    for names in _deciding(list(axes), len(space.stages)):
        for values in product(*(axes[name] for name in names)):
            params = {**largest, **dict(zip(names, values, strict=True))}
            for recipe in block_recipes(space.plan(Architecture(space.name, params)), dimension):
                found.setdefault(recipe.key, recipe)
    return list(found.values())


def _deciding(names: list[str], stages: int) -> Iterator[list[str]]:
    """Yield the parameters that decide on the stem, on the blocks of each stage, on the head."""
    sides = [n for n in names if not n.startswith("stage") and not n.endswith("_width")]
    width = "stem_width"
    yield [*sides, width]
    for stage in (f"stage{number}_" for number in range(1, stages + 1)):
        own = [n for n in names if n.startswith(stage) and n != f"{stage}depth"]
        yield [*sides, width, *own]
        sides.append(f"{stage}stride")
        width = f"{stage}width"
    yield [*sides, width, "head_width"]


class _Stem(nn.Sequential):
    """Normalisation and the first convolution."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images - 0.5) / 0.5)


class _Head(nn.Sequential):
    """The last convolution, and from its maps to unit vectors."""

    def forward(self, maps: Tensor) -> Tensor:
        conv, projection = self
        return F.normalize(projection(conv(maps).mean((2, 3))), dim=-1)


def _stem(side: int, width: int, stride: int) -> BlockRecipe:
    return BlockRecipe(
        f"mbconv stem side={side} width={width} stride={stride}",
        (3, side, side),
        lambda: _Stem(ConvNorm(3, width, PLAIN, activation="hswish", kernel=3, stride=stride)),
    )


def _block(side: int, plan: BlockPlan) -> BlockRecipe:
    words = " ".join(f"{name}={value}" for name, value in asdict(plan).items())
    return BlockRecipe(
        f"mbconv block side={side} {words}",
        (plan.width_in, side, side),
        lambda: Block(plan, PLAIN, quiet=False),
    )


def _head(side: int, width_in: int, width: int, dimension: int) -> BlockRecipe:
    return BlockRecipe(
        f"mbconv head side={side} width_in={width_in} width={width} dimension={dimension}",
        (width_in, side, side),
        lambda: _Head(
            ConvNorm(width_in, width, PLAIN, activation="hswish"),
            Projection(width, dimension),
        ),
    )
