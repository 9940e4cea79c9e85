"""The space of choice blocks: which block and how many hidden channels every layer has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Annotated, Any, ClassVar

from optuna.distributions import BaseDistribution
from pydantic import Field

from searchspaces.architecture import Architecture
from searchspaces.elastic import choices
from searchspaces.elastic.choices import (
    MOST_LAYERS,
    Count,
    Kinds,
    Ratios,
    Resolutions,
    Strides,
    Width,
)
from searchspaces.elastic.modules import PLAIN
from searchspaces.elastic.plan import multiple_of_8
from searchspaces.elastic.planned import PlannedSpace
from searchspaces.errors import SearchSpaceError
from searchspaces.options import check_options
from searchspaces.shufflenet.blocks import block_recipes
from searchspaces.shufflenet.layers import ShuffleNetBackbone
from searchspaces.shufflenet.plan import KERNELS, BlockPlan, ConvPlan, NetworkPlan
from searchspaces.shufflenet.supernet import ShuffleNetSupernet
from searchspaces.space import BlockRecipe
from searchspaces.supernet import Supernet
from searchspaces.support.section import Section


class _Options(Section):
    stem_width: Width
    widths: tuple[Annotated[Width, Field(multiple_of=16)], ...] = Field(max_length=MOST_LAYERS)
    depths: tuple[Count, ...] = Field(max_length=MOST_LAYERS)
    head_width: Width


@dataclass(frozen=True)
class ShuffleNetSpace(PlannedSpace[NetworkPlan]):
    """Query networks of layers that each choose a block; every combination is a valid network.

    The space of CMP-NAS (Duggal et al., "Compatibility-aware heterogeneous visual search", CVPR
    2021), whose blocks, widths and depths are those of Guo et al., "Single path one-shot neural
    architecture search with uniform sampling", ECCV 2020: 20 layers, each a ShuffleNetV2 block
    with a kernel of 3, 5 or 7 or an Xception-like one, and the share of channels inside it. Their
    ten shares from 0.2 to 2 are three by default, and resolution and stem stride are choices too.

    Options may be plain lists, as YAML gives them.

    Args:
        resolutions: Sides of the input in pixels.
        stem_width: Output channels of the first convolution, a multiple of 8.
        stem_strides: Strides of the first convolution, 1 or 2.
        widths: Output channels of each stage, increasing, multiples of 16. A stage begins with a
            layer of stride 2.
        depths: Layers of each stage.
        kinds: The blocks that a layer may be, of "shuffle3", "shuffle5", "shuffle7" and
            "xception".
        ratios: Hidden channels of a block as multiples of half its output channels, rounded to 8.
        head_width: Output channels of the final 1x1 convolution, a multiple of 8.

    Raises:
        SearchSpaceError: If a choice is empty, repeated or out of range; names the option.
    """

    name: ClassVar[str] = "shufflenet"

    resolutions: Resolutions = (32, 48, 64)
    stem_width: int = 16
    stem_strides: Strides = (1, 2)
    widths: tuple[int, ...] = (64, 160, 320, 640)
    depths: tuple[int, ...] = (4, 4, 8, 4)
    kinds: Annotated[tuple[str, ...], Kinds(tuple(KERNELS))] = tuple(KERNELS)
    ratios: Ratios = (0.5, 1, 1.5)
    head_width: int = 1024

    def __post_init__(self) -> None:
        for option, values in choices.read(self, "{} of the space 'shufflenet'").items():
            object.__setattr__(self, option, values)
        check_options(self, _Options)
        if not len(self.widths) == len(self.depths) > 0:
            raise SearchSpaceError(
                f"the space 'shufflenet' has {len(self.widths)} widths and {len(self.depths)} "
                "depths: give one of each per stage"
            )
        if any(narrow >= wide for narrow, wide in pairwise((self.stem_width, *self.widths))):
            raise SearchSpaceError(
                f"widths of the space 'shufflenet' is {list(self.widths)} after a stem_width of "
                f"{self.stem_width}: give larger ones from stage to stage, as a layer of stride 2 "
                "adds channels to those of its input"
            )

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """Resolution, stem stride, and every layer's kind and ratio ("layer1_kind")."""
        of_layers = choices.distributions(self)
        of_network = {name: of_layers.pop(name) for name in ("resolution", "stem_stride")}
        return of_network | {
            f"{layer}_{name}": distribution
            for layer in self._layers
            for name, distribution in of_layers.items()
        }

    def full_plans(self) -> list[NetworkPlan]:
        """Return one network per kind of block, with the most channels everywhere."""
        sides = self.resolutions[-1], self.stem_strides[0]
        return [self._plan(self._uniform(*sides, kind, self.ratios[-1])) for kind in self.kinds]

    def backbone(self, plan: NetworkPlan) -> ShuffleNetBackbone:
        """Make the network from normalised images to pooled features."""
        return ShuffleNetBackbone([plan], PLAIN)

    def supernet(self, dimension: int) -> Supernet:
        """Make the network that acts as any of them, with fresh weights."""
        return ShuffleNetSupernet(self, dimension)

    def _extreme(self, *, most: bool) -> Architecture:
        """Choose layer by layer: what a layer costs does not depend on the others' choices."""
        end: Any = max if most else min
        resolution = end(self.resolutions)
        stride = self.stem_strides[0 if most else -1]
        params = self._uniform(resolution, stride, self.kinds[0], self.ratios[0])
        for layer in self._layers:
            candidates = [
                {**params, f"{layer}_kind": kind, f"{layer}_ratio": ratio}
                for kind, ratio in product(self.kinds, self.ratios)
            ]
            params = end(candidates, key=lambda each: self._plan(each).macs(1))
        return Architecture(self.name, {name: params[name] for name in self._distributions})

    def _uniform(self, resolution: int, stride: int, kind: str, ratio: float) -> dict[str, Any]:
        """Give all layers the same block."""
        params: dict[str, Any] = {"resolution": resolution, "stem_stride": stride}
        for layer in self._layers:
            params |= {f"{layer}_kind": kind, f"{layer}_ratio": ratio}
        return params

    def _recipes(self, plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
        return block_recipes(plan, dimension)

    def _covering(self) -> Iterator[Mapping[str, Any]]:
        """Give all layers the same block, as no block depends on the others' choices."""
        for choice in product(self.resolutions, self.stem_strides, self.kinds, self.ratios):
            yield self._uniform(*choice)

    @property
    def _layers(self) -> list[str]:
        return [f"layer{index}" for index in range(1, sum(self.depths) + 1)]

    def _plan(self, params: Mapping[str, Any]) -> NetworkPlan:
        blocks: list[BlockPlan] = []
        width_in = self.stem_width
        for width, depth in zip(self.widths, self.depths, strict=True):
            for position in range(depth):
                choice = choices.chosen(self, params, f"layer{len(blocks) + 1}_")
                blocks.append(
                    BlockPlan(
                        kind=choice["kind"],
                        width_in=width_in,
                        width=width,
                        hidden=multiple_of_8(width / 2 * choice["ratio"]),
                        stride=2 if position == 0 else 1,
                    )
                )
                width_in = width
        return NetworkPlan(
            resolution=params["resolution"],
            stem=ConvPlan(3, self.stem_width, kernel=3, stride=params["stem_stride"]),
            blocks=tuple(blocks),
            head=ConvPlan(width_in, self.head_width),
        )
