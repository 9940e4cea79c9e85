"""The space of choice blocks: which block and how many hidden channels every layer has."""

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Annotated, Any, ClassVar

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.elastic import choices
from searchspaces.elastic.choices import Kinds, Ratios, Resolutions, Strides
from searchspaces.elastic.modules import PLAIN
from searchspaces.elastic.plan import multiple_of_8
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import Projection, QueryModel
from searchspaces.shufflenet.layers import ShuffleNetBackbone
from searchspaces.shufflenet.plan import KERNELS, BlockPlan, ConvPlan, NetworkPlan
from searchspaces.space import register_space
from searchspaces.supernet import Supernet


@register_space("shufflenet")
@dataclass(frozen=True)
class ShuffleNetSpace:
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
        for option, step in (("widths", 16), ("depths", 1)):
            values = getattr(self, option)
            if not isinstance(values, list | tuple) or not all(_multiple(v, step) for v in values):
                words = f"multiples of {step}" if step > 1 else "positive whole numbers"
                raise SearchSpaceError(
                    f"{option} of the space 'shufflenet' is {values!r}: give a list of {words}, "
                    "one per stage"
                )
            object.__setattr__(self, option, tuple(values))
        for option in ("stem_width", "head_width"):
            if not _multiple(getattr(self, option), 8):
                raise SearchSpaceError(
                    f"{option} of the space 'shufflenet' is {getattr(self, option)!r}: give one "
                    "multiple of 8"
                )
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
        of_layers = choices.distributions(self)
        of_network = {name: of_layers.pop(name) for name in ("resolution", "stem_stride")}
        return of_network | {
            f"{layer}_{name}": distribution
            for layer in self._layers
            for name, distribution in of_layers.items()
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return resolution, stem stride, and every layer's kind and ratio ("layer1_kind")."""
        return dict(self._distributions)

    def suggest(self, trial: BaseTrial) -> Architecture:
        """Let an Optuna trial choose every parameter."""
        return Architecture(self.name, parameters.suggest(trial, self._distributions))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw an architecture uniformly."""
        return Architecture(self.name, parameters.sample(rng, self._distributions))

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """Yield the architectures that differ from this one by one step of one parameter."""
        self._check(arch)
        for params in parameters.neighbours(arch.params, self._distributions):
            yield Architecture(self.name, params)

    def largest(self) -> Architecture:
        """Return the architecture with the most multiply-accumulates."""
        return self._ends[1]

    def smallest(self) -> Architecture:
        """Return the architecture with the fewest multiply-accumulates."""
        return self._ends[0]

    def size(self) -> int:
        """Count the architectures."""
        return parameters.size(self._distributions)

    def plan(self, arch: Architecture) -> NetworkPlan:
        """Work out the blocks and widths of an architecture.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        self._check(arch)
        return self._plan(arch.params)

    def full_plans(self) -> list[NetworkPlan]:
        """Return one network per kind of block, with the most channels everywhere."""
        return [self._plan(self._uniform(max, kind, self.ratios[-1])) for kind in self.kinds]

    def macs(self, arch: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image by formula, without building the network.

        Args:
            arch: An architecture of this space.
            dimension: Number of dimensions of the gallery space.
        """
        return self.plan(arch).macs(dimension)

    def build(self, arch: Architecture, dimension: int) -> QueryModel:
        """Make the network of ordinary PyTorch layers, with fresh weights.

        Args:
            arch: An architecture of this space.
            dimension: Number of dimensions of the gallery space.
        """
        plan = self.plan(arch)
        return QueryModel(
            ShuffleNetBackbone([plan], PLAIN),
            Projection(plan.features, dimension),
            resolution=plan.resolution,
            origin={
                "space": {"name": self.name, "options": dataclasses.asdict(self)},
                "params": dict(arch.params),
                "dimension": dimension,
            },
        )

    def supernet(self, dimension: int) -> Supernet:
        """Make the network that acts as any of them, with fresh weights."""
        from searchspaces.shufflenet.supernet import ShuffleNetSupernet

        return ShuffleNetSupernet(self, dimension)

    @cached_property
    def _ends(self) -> tuple[Architecture, Architecture]:
        return self._extreme(min), self._extreme(max)

    def _extreme(self, most: Any) -> Architecture:
        """Choose layer by layer: what a layer costs does not depend on the others' choices."""
        params = self._uniform(most, self.kinds[0], self.ratios[0])
        for layer in self._layers:
            candidates = [
                {**params, f"{layer}_kind": kind, f"{layer}_ratio": ratio}
                for kind, ratio in product(self.kinds, self.ratios)
            ]
            params = most(candidates, key=lambda each: self._plan(each).macs(1))
        return Architecture(self.name, {name: params[name] for name in self._distributions})

    def _uniform(self, most: Any, kind: str, ratio: float) -> dict[str, Any]:
        """Give all layers the same block, at the most or the fewest positions."""
        params: dict[str, Any] = {
            "resolution": most(self.resolutions),
            "stem_stride": most(self.stem_strides, key=lambda stride: -stride),
        }
        for layer in self._layers:
            params |= {f"{layer}_kind": kind, f"{layer}_ratio": ratio}
        return params

    @property
    def _layers(self) -> list[str]:
        return [f"layer{index}" for index in range(1, sum(self.depths) + 1)]

    def _check(self, arch: Architecture) -> None:
        parameters.check(arch, self.name, self._distributions)

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


def _multiple(value: Any, step: int) -> bool:
    return type(value) is int and value > 0 and value % step == 0
