"""The elastic transformer space: which stems, widths, depths, heads and MLPs there are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Annotated, Any, ClassVar

from optuna.distributions import BaseDistribution

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.elastic import choices
from searchspaces.elastic.choices import (
    Count,
    Counts,
    Depths,
    Kinds,
    Numbers,
    Ratios,
    Sides,
    Width,
    Widths,
)
from searchspaces.elastic.plan import multiple_of_8
from searchspaces.elastic.planned import PlannedSpace
from searchspaces.errors import SearchSpaceError
from searchspaces.options import check_options
from searchspaces.space import BlockRecipe
from searchspaces.supernet import Supernet
from searchspaces.support.section import Section
from searchspaces.vit.blocks import block_recipes
from searchspaces.vit.layers import PLAIN, ViTBackbone
from searchspaces.vit.plan import BlockPlan, NetworkPlan, StemPlan
from searchspaces.vit.supernet import ViTSupernet

Patches = Annotated[
    tuple[int, ...],
    Numbers("powers of two from 2 to 256", lambda v: v in (2, 4, 8, 16, 32, 64, 128, 256)),
]
Stems = Annotated[tuple[str, ...], Kinds(("patch", "conv"))]


class _Options(Section):
    stem_width: Width
    head_width: Width
    parts: Count


@dataclass(frozen=True)
class ViTSpace(PlannedSpace[NetworkPlan]):
    """Small vision transformers for query images; every combination is a valid network.

    After Chen et al., "AutoFormer", ICCV 2021: heads of one fixed width, so that the number of
    heads and the embedding width are free of each other; heads and MLP ratio vary along the depth.
    They are chosen for each of `parts` equal parts of the blocks, not for each block: a choice for
    a block that a shallow network lacks would be idle, and one network would be many architectures.
    `parts=1` means one choice for the network, a single depth of `parts` one for every block.

    Options may be plain lists, as YAML gives them.

    Args:
        resolutions: Sides of the input in pixels, multiples of every patch.
        patches: Sides in pixels of the square that becomes one token, powers of two.
        stems: "patch" for a linear map of each patch, "conv" for 3x3 convolutions of stride 2; a
            parameter only where both are given.
        stem_width: Output channels of a convolutional stem's first convolution, a multiple of 8;
            each further one doubles them.
        widths: Embedding widths, multiples of 8.
        depths: Numbers of blocks.
        heads: Numbers of attention heads.
        head_width: Channels of a head, a multiple of 8.
        ratios: Hidden channels of a block's MLP as a multiple of the width, rounded to 8.
        parts: Parts of the blocks with heads and MLP ratio of their own, at most the least depth.

    Raises:
        SearchSpaceError: If a choice is empty, repeated or out of range; names the option.
    """

    name: ClassVar[str] = "vit"

    resolutions: Sides = (64, 80, 96)
    patches: Patches = (8, 16)
    stems: Stems = ("patch", "conv")
    stem_width: int = 16
    widths: Widths = (64, 96, 128, 160)
    depths: Depths = (3, 4, 5, 6)
    heads: Counts = (2, 3, 4)
    head_width: int = 32
    ratios: Ratios = (1, 2, 3)
    parts: int = 3

    def __post_init__(self) -> None:
        for option, values in choices.read(self, "{} of the space 'vit'").items():
            object.__setattr__(self, option, values)
        check_options(self, _Options)
        for resolution, patch in product(self.resolutions, self.patches):
            if resolution % patch:
                raise SearchSpaceError(
                    f"resolutions of the space 'vit' has {resolution}, which patches of {patch} "
                    f"pixels do not fill: give multiples of {max(self.patches)}"
                )
        if self.parts > min(self.depths):
            raise SearchSpaceError(
                f"parts of the space 'vit' is {self.parts!r}: give a whole number from 1 to "
                f"{min(self.depths)}, the least of depths"
            )

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """Those of the network, and every part's heads and ratio ("part1_heads")."""
        found = choices.distributions(self)
        heads, ratio = found.pop("head"), found.pop("ratio")
        for part in range(1, self.parts + 1):
            found |= {f"part{part}_heads": heads, f"part{part}_ratio": ratio}
        return found

    def full_plan(self) -> NetworkPlan:
        """Return the plan whose every block holds that block of every architecture."""
        return self._plan(self.largest().params)

    def stem_plans(self) -> list[StemPlan]:
        """List the stems of all architectures."""
        return [self._stem(stem, patch) for stem, patch in product(self.stems, self.patches)]

    def backbone(self, plan: NetworkPlan) -> ViTBackbone:
        """Make the network from normalised images to pooled features."""
        return ViTBackbone(plan, PLAIN, [plan.stem])

    def supernet(self, dimension: int) -> Supernet:
        """Make the network that acts as any of them, with fresh weights."""
        return ViTSupernet(self, dimension)

    def _extreme(self, *, most: bool) -> Architecture:
        """The costs of stem and patch depend on each other; all others grow with their value."""
        end: Any = max if most else min
        grids = {name: parameters.grid(name, each) for name, each in self._distributions.items()}
        entangled = {name: grids.pop(name) for name in ("stem", "patch") if name in grids}
        ends = {name: end(values) for name, values in grids.items()}
        candidates = [
            Architecture(self.name, {**ends, **dict(zip(entangled, values, strict=True))})
            for values in product(*entangled.values())
        ]
        return end(candidates, key=lambda architecture: self._plan(architecture.params).macs(1))

    def _recipes(self, plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
        return block_recipes(plan, dimension)

    def _covering(self) -> Iterator[Mapping[str, Any]]:
        """Give all parts the same blocks, as no block depends on the others' choices."""
        names = ("resolution", "patch", "stem", "width")
        for *network, heads, ratio in product(
            self.resolutions, self.patches, self.stems, self.widths, self.heads, self.ratios
        ):
            params = dict(zip(names, network, strict=True)) | {"depth": self.depths[0]}
            for part in range(1, self.parts + 1):
                params |= {f"part{part}_heads": heads, f"part{part}_ratio": ratio}
            yield params

    def _stem(self, kind: str, patch: int) -> StemPlan:
        halvings = patch.bit_length() - 1 if kind == "conv" else 0
        return StemPlan(patch, tuple(self.stem_width << index for index in range(halvings)))

    def _plan(self, params: Mapping[str, Any]) -> NetworkPlan:
        width, depth = params["width"], params["depth"]
        parts = [
            BlockPlan(
                width=width,
                heads=params[f"part{part}_heads"],
                head_width=self.head_width,
                hidden=multiple_of_8(width * params[f"part{part}_ratio"]),
            )
            for part in range(1, self.parts + 1)
        ]
        blocks = tuple(parts[index * self.parts // depth] for index in range(depth))
        stem = self._stem(params.get("stem", self.stems[0]), params["patch"])
        return NetworkPlan(params["resolution"], stem, blocks)
