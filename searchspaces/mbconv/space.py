"""The elastic inverted-bottleneck space: which widths, depths, kernels and strides there are."""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.errors import SearchSpaceError
from searchspaces.mbconv.layers import ACTIVATIONS, Layers, MBConvBackbone
from searchspaces.mbconv.plan import BlockPlan, NetworkPlan, count
from searchspaces.query_model import Projection, QueryModel
from searchspaces.space import register_space

CHOICES = {
    "width": "widths",
    "depth": "depths",
    "expansion": "expansions",
    "kernel": "kernels",
    "stride": "strides",
}


@dataclass(frozen=True)
class Stage:
    """The choices of one stage; its blocks share width, expansion and kernel.

    Args:
        widths: Output channels, multiples of 8.
        depths: Numbers of blocks.
        expansions: Hidden channels as a multiple of a block's input channels, rounded to 8.
        kernels: Odd sides of the depthwise kernel.
        strides: Strides of the first block, 1 or 2.
        activation: "relu" or "hswish".
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    expansions: tuple[float, ...] = (3, 4, 6)
    kernels: tuple[int, ...] = (3, 5)
    strides: tuple[int, ...] = (2,)
    activation: str = "hswish"


DEFAULT_STAGES = (
    Stage((16, 24), (1, 2), (2, 3), (3, 5), (2,), "relu"),
    Stage((24, 32), (1, 2, 3), (2, 3), (3, 5), (2,), "relu"),
    Stage((40, 48, 56), (1, 2, 3), (2, 3, 4), (3, 5), (1, 2), "hswish"),
    Stage((64, 80, 96), (1, 2), (2, 3, 4), (3, 5), (1,), "hswish"),
)


@register_space("mbconv")
@dataclass(frozen=True)
class MBConvSpace:
    """Query networks of MobileNetV3 blocks for small images; every combination is a valid network.

    Options may be plain lists and dictionaries, as YAML gives them.

    Args:
        resolutions: Sides of the input in pixels.
        stem_widths: Output channels of the first convolution, multiples of 8.
        stem_strides: Strides of the first convolution.
        stages: The choices of each stage.
        head_widths: Output channels of the final 1x1 convolution, multiples of 8.
        se: Whether every block has squeeze-and-excitation (a quarter of the hidden channels).

    Raises:
        SearchSpaceError: If a choice is empty, repeated or out of range; names the option.
    """

    name: ClassVar[str] = "mbconv"

    resolutions: tuple[int, ...] = (32, 40, 48)
    stem_widths: tuple[int, ...] = (8, 16)
    stem_strides: tuple[int, ...] = (1, 2)
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    head_widths: tuple[int, ...] = (192, 256, 320)
    se: bool = False

    def __post_init__(self) -> None:
        stages = tuple(_stage(index, stage) for index, stage in enumerate(self.stages, 1))
        if not stages:
            raise SearchSpaceError("the space 'mbconv' needs at least one entry in 'stages'")
        object.__setattr__(self, "stages", stages)
        for option in ("resolutions", "stem_widths", "stem_strides", "head_widths"):
            object.__setattr__(self, option, _choices(option, getattr(self, option)))

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        choices: dict[str, tuple[float, ...]] = {
            "resolution": self.resolutions,
            "stem_width": self.stem_widths,
            "stem_stride": self.stem_strides,
        }
        for index, stage in enumerate(self.stages, 1):
            for parameter, option in CHOICES.items():
                choices[f"stage{index}_{parameter}"] = getattr(stage, option)
        choices["head_width"] = self.head_widths
        return {name: _distribution(values) for name, values in choices.items()}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return one distribution per choice, evenly spaced integers as `IntDistribution`."""
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
        return self._extreme(max, min)

    def smallest(self) -> Architecture:
        """Return the architecture with the fewest multiply-accumulates."""
        return self._extreme(min, max)

    def size(self) -> int:
        """Count the architectures."""
        return parameters.size(self._distributions)

    def plan(self, arch: Architecture) -> NetworkPlan:
        """Work out the widths, kernels and strides of an architecture's layers.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        self._check(arch)
        return self._plan(arch.params)

    def full_plan(self) -> NetworkPlan:
        """Return the plan whose every layer holds that layer of every architecture."""
        return self._plan(self.largest().params)

    def macs(self, arch: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image by formula, without building the network.

        Args:
            arch: An architecture of this space.
            dimension: Number of dimensions of the gallery space.
        """
        return count(self.plan(arch), dimension)

    def build(self, arch: Architecture, dimension: int) -> QueryModel:
        """Make the network of ordinary PyTorch layers, with fresh weights.

        Args:
            arch: An architecture of this space.
            dimension: Number of dimensions of the gallery space.
        """
        plan = self.plan(arch)
        return QueryModel(
            MBConvBackbone(plan, Layers()),
            Projection(plan.head_width, dimension),
            resolution=plan.resolution,
            origin={
                "space": {"name": self.name, "options": dataclasses.asdict(self)},
                "params": dict(arch.params),
                "dimension": dimension,
            },
        )

    def _check(self, arch: Architecture) -> None:
        parameters.check(arch, self.name, self._distributions)

    def _extreme(self, most: Any, least: Any) -> Architecture:
        return Architecture(
            self.name,
            {
                name: (least if name.endswith("stride") else most)(parameters.grid(name, each))
                for name, each in self._distributions.items()
            },
        )

    def _plan(self, params: Mapping[str, Any]) -> NetworkPlan:
        width = params["stem_width"]
        stages = []
        for index, stage in enumerate(self.stages, 1):
            choice = {name: params[f"stage{index}_{name}"] for name in CHOICES}
            blocks = []
            for position in range(choice["depth"]):
                hidden = _multiple_of_8(width * choice["expansion"])
                blocks.append(
                    BlockPlan(
                        width_in=width,
                        hidden=hidden,
                        width=choice["width"],
                        kernel=choice["kernel"],
                        stride=choice["stride"] if position == 0 else 1,
                        squeeze=_multiple_of_8(hidden / 4) if self.se else 0,
                        activation=stage.activation,
                    )
                )
                width = choice["width"]
            stages.append(tuple(blocks))
        return NetworkPlan(
            resolution=params["resolution"],
            stem_width=params["stem_width"],
            stem_stride=params["stem_stride"],
            stages=tuple(stages),
            head_width=params["head_width"],
        )


def _stage(index: int, stage: Stage | Mapping[str, Any]) -> Stage:
    where = f"stages[{index}]"
    options = dict(stage) if isinstance(stage, Mapping) else vars(stage)
    known = [field.name for field in fields(Stage)]
    for option in options:
        if option not in known:
            raise SearchSpaceError(
                f"{where} of the space 'mbconv' has no option '{option}': "
                f"{parameters.near(option, known)}"
            )
    for option in ("widths", "depths"):
        if option not in options:
            raise SearchSpaceError(f"{where} of the space 'mbconv' needs the option '{option}'")
    made = Stage(**options)
    if made.activation not in ACTIVATIONS:
        raise SearchSpaceError(
            f"{where}.activation is '{made.activation}': "
            f"{parameters.near(str(made.activation), list(ACTIVATIONS))}"
        )
    choices: dict[str, Any] = {
        option: _choices(f"{where}.{option}", getattr(made, option)) for option in CHOICES.values()
    }
    return dataclasses.replace(made, **choices)


def _choices(option: str, values: Sequence[float]) -> tuple[float, ...]:
    """Sort the values of an option after checking them by the rule of its kind."""
    rules = {
        "widths": ("multiples of 8", lambda v: isinstance(v, int) and v > 0 and v % 8 == 0),
        "kernels": ("odd whole numbers", lambda v: isinstance(v, int) and v > 0 and v % 2 == 1),
        "strides": ("1 or 2", lambda v: v in (1, 2)),
        "expansions": ("numbers of at least 1", lambda v: isinstance(v, int | float) and v >= 1),
        "depths": ("positive whole numbers", lambda v: isinstance(v, int) and v > 0),
        "resolutions": ("whole numbers of at least 8", lambda v: isinstance(v, int) and v >= 8),
    }
    words, rule = next(each for kind, each in rules.items() if option.endswith(kind))
    good = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not good or not all(rule(value) for value in values) or len(set(values)) < len(values):
        raise SearchSpaceError(
            f"{option} of the space 'mbconv' is {values!r}: give a list of different {words}"
        )
    return tuple(sorted(values))


def _distribution(values: tuple[float, ...]) -> BaseDistribution:
    steps = {second - first for first, second in pairwise(values)}
    if all(isinstance(value, int) for value in values) and len(steps) == 1:
        return IntDistribution(int(values[0]), int(values[-1]), step=int(steps.pop()))
    return CategoricalDistribution(values)


def _multiple_of_8(width: float) -> int:
    return max(8, 8 * round(width / 8))
