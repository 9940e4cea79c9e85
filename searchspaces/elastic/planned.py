"""What elastic spaces have in common: options, then parameters, then a plan, then a network."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from optuna.distributions import BaseDistribution
from torch import nn

from searchspaces.architecture import Architecture
from searchspaces.elastic import choices
from searchspaces.elastic.plan import Plan
from searchspaces.parametric import ParametricSpace
from searchspaces.projection import Projection
from searchspaces.query_model import QueryModel
from searchspaces.space import BlockRecipe
from searchspaces.supernet import Supernet

AnyPlan = TypeVar("AnyPlan", bound=Plan)


class PlannedSpace(ParametricSpace, Generic[AnyPlan]):
    """An elastic space whose parameters are free of each other and make a plan.

    A subclass is a frozen dataclass of the options; those that list choices say their rules in
    their types (`searchspaces.elastic.choices`). All that is asked of an architecture comes from
    its plan: the cost by formula, the network, its blocks.
    """

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return choices.distributions(self)

    def largest(self) -> Architecture:
        """Return the architecture with the most multiply-accumulates."""
        return self._ends[1]

    def smallest(self) -> Architecture:
        """Return the architecture with the fewest multiply-accumulates."""
        return self._ends[0]

    def plan(self, architecture: Architecture) -> AnyPlan:
        """Work out the widths, kernels and strides of an architecture's layers.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        self._check(architecture)
        return self._plan(architecture.params)

    def macs(self, architecture: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image by formula, without building the network.

        Args:
            architecture: An architecture of this space.
            dimension: Number of dimensions of the gallery space.
        """
        return self.plan(architecture).macs(dimension)

    def build(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Make the network of ordinary PyTorch layers, with fresh weights.

        Args:
            architecture: An architecture of this space.
            dimension: Number of dimensions of the gallery space.
        """
        plan = self.plan(architecture)
        return QueryModel(
            self.backbone(plan),
            Projection(plan.features, dimension),
            resolution=plan.resolution,
            origin={
                "space": {"name": self.name, "options": dataclasses.asdict(self)},  # type: ignore[call-overload]
                "params": dict(architecture.params),
                "dimension": dimension,
            },
        )

    def blocks(self, architecture: Architecture, dimension: int) -> list[BlockRecipe]:
        """Split a network into its blocks, from images in [0, 1] to vectors of `dimension`."""
        return self._recipes(self.plan(architecture), dimension)

    def every_block(self, dimension: int) -> list[BlockRecipe]:
        """Return each block that any architecture has, once."""
        found: dict[str, BlockRecipe] = {}
        for params in self._covering():
            for recipe in self._recipes(self._plan(params), dimension):
                found.setdefault(recipe.key, recipe)
        return list(found.values())

    @abstractmethod
    def backbone(self, plan: AnyPlan) -> nn.Module:
        """Make the network from normalised images to pooled features."""

    @abstractmethod
    def supernet(self, dimension: int) -> Supernet:
        """Make the network that acts as any of them, with fresh weights.

        Args:
            dimension: Number of dimensions of the gallery space.
        """

    @abstractmethod
    def _plan(self, params: Mapping[str, Any]) -> AnyPlan:
        """Work out the plan of checked parameters."""

    @abstractmethod
    def _extreme(self, *, most: bool) -> Architecture:
        """Find the architecture with the most or the fewest multiply-accumulates."""

    @abstractmethod
    def _recipes(self, plan: AnyPlan, dimension: int) -> list[BlockRecipe]:
        """Describe the blocks of a planned network, in order."""

    @abstractmethod
    def _covering(self) -> Iterator[Mapping[str, Any]]:
        """Yield the parameters of networks that have every block of the space between them."""

    @cached_property
    def _ends(self) -> tuple[Architecture, Architecture]:
        return self._extreme(most=False), self._extreme(most=True)
