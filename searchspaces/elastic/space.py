"""What the spaces of convolutional networks with elastic stages have in common."""

import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial
from torch import nn

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.elastic import choices
from searchspaces.elastic.modules import PLAIN, Layers
from searchspaces.elastic.plan import Plan
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import Projection, QueryModel
from searchspaces.supernet import Supernet

AnyPlan = TypeVar("AnyPlan", bound=Plan)


class StagedSpace(ABC, Generic[AnyPlan]):
    """An elastic space whose options list choices, for the whole network and for each stage.

    A subclass is a frozen dataclass whose fields say their rules (`searchspaces.elastic.choices`).
    Its field `stages` holds instances of `stage_type`, or what makes them: YAML's dictionaries.
    What costs more is larger, except strides.

    Attributes:
        name: The name in the registry.
        stage_type: A frozen dataclass with the options of one stage, `kernels` among them.
    """

    name: ClassVar[str]
    stage_type: ClassVar[type]
    stages: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.stages, list | tuple) or not self.stages:
            raise SearchSpaceError(
                f"'stages' of the space '{self.name}' is {self.stages!r}: give a list of at least "
                "one stage"
            )
        for option, values in choices.read(self, f"{{}} of the space '{self.name}'").items():
            object.__setattr__(self, option, values)
        stages = tuple(self._stage(f"stages[{i}]", each) for i, each in enumerate(self.stages, 1))
        object.__setattr__(self, "stages", stages)

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return choices.distributions(self)

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
        return self._extreme(most=True)

    def smallest(self) -> Architecture:
        """Return the architecture with the fewest multiply-accumulates."""
        return self._extreme(most=False)

    def size(self) -> int:
        """Count the architectures."""
        return parameters.size(self._distributions)

    def plan(self, arch: Architecture) -> AnyPlan:
        """Work out the widths, kernels and strides of an architecture's layers.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        self._check(arch)
        return self._plan(arch.params)

    def full_plan(self) -> AnyPlan:
        """Return the plan whose every layer holds that layer of every architecture."""
        return self._plan(self.largest().params)

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
            self.backbone(plan, PLAIN),
            Projection(plan.features, dimension),
            resolution=plan.resolution,
            origin={
                "space": {"name": self.name, "options": dataclasses.asdict(self)},  # type: ignore[call-overload]
                "params": dict(arch.params),
                "dimension": dimension,
            },
        )

    @abstractmethod
    def backbone(self, plan: AnyPlan, layers: Layers) -> nn.Module:
        """Make the network from normalised images to pooled features."""

    @abstractmethod
    def supernet(self, dimension: int, *, kernel_transform: bool = False) -> Supernet:
        """Make the network that acts as any of them, with fresh weights.

        Args:
            dimension: Number of dimensions of the gallery space.
            kernel_transform: Whether smaller kernels are learnt maps of larger ones' centres and
                not the centres themselves; see `ElasticConv2d.learn_kernels`.
        """

    @abstractmethod
    def _plan(self, params: Mapping[str, Any]) -> AnyPlan:
        """Work out the plan of checked parameters."""

    def _inherited(self) -> Mapping[str, Any]:
        """Return the options that a stage takes from the space where it says nothing."""
        return {}

    def _check(self, arch: Architecture) -> None:
        parameters.check(arch, self.name, self._distributions)

    def _extreme(self, *, most: bool) -> Architecture:
        return Architecture(
            self.name,
            {
                name: parameters.grid(name, each)[-1 if most != name.endswith("stride") else 0]
                for name, each in self._distributions.items()
            },
        )

    def _stage(self, where: str, given: Any) -> Any:
        if not isinstance(given, (Mapping, self.stage_type)):
            raise SearchSpaceError(
                f"{where} of the space '{self.name}' is {given!r}: give the stage's options by name"
            )
        given = given if isinstance(given, Mapping) else vars(given)
        options = {**self._inherited(), **{k: v for k, v in given.items() if v is not None}}
        known = {field.name: field for field in dataclasses.fields(self.stage_type)}
        for option in options:
            if option not in known:
                raise SearchSpaceError(
                    f"{where} of the space '{self.name}' has no option '{option}': "
                    f"{parameters.near(str(option), known)}"
                )
        for option, field in known.items():
            if field.default is dataclasses.MISSING and option not in options:
                raise SearchSpaceError(
                    f"{where} of the space '{self.name}' needs the option '{option}'"
                )
        stage = self.stage_type(**options)
        read = choices.read(stage, f"{where}.{{}} of the space '{self.name}'")
        return dataclasses.replace(stage, **read)
