"""What a search space is, and how one is found by its name."""

import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, runtime_checkable

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial
from torch import nn

from searchspaces.architecture import Architecture
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import QueryModel
from searchspaces.support.naming import suggestion

ENTRY_POINTS = "querynas.searchspaces"


@runtime_checkable
class SearchSpace(Protocol):
    """A set of query networks with ordinary Optuna distributions as its axes.

    By convention the parameter `resolution`, or the one that ends in `.resolution` where a choice
    decides which parameters follow, is the side of the square input image in pixels.
    """

    @property
    def name(self) -> str:
        """The name in the registry."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return one Optuna distribution per parameter."""

    def suggest(self, trial: BaseTrial) -> Architecture:
        """Let an Optuna trial choose every parameter."""

    def sample(self, rng: random.Random) -> Architecture:
        """Draw an architecture uniformly."""

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architectures that differ from this one in one parameter."""

    def size(self) -> int:
        """Count the architectures."""

    def macs(self, architecture: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image, the projection to `dimension` included."""

    def build(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Make the network with fresh weights."""


@dataclass(frozen=True)
class BlockRecipe:
    """A block of a network, to be made and timed by itself.

    Attributes:
        key: In words, all that its time depends on; blocks with equal keys are alike.
        shape: Shape of its input without the batch, such as (channels, height, width).
        make: Makes it with fresh weights; its output is the input of the next block.
    """

    key: str
    shape: tuple[int, ...]
    make: Callable[[], nn.Module]


@runtime_checkable
class BlockwiseSpace(SearchSpace, Protocol):
    """A search space whose networks are chains of blocks, so that their times can be added up."""

    def blocks(self, architecture: Architecture, dimension: int) -> list[BlockRecipe]:
        """Split a network into its blocks, from images in [0, 1] to vectors of `dimension`."""

    def every_block(self, dimension: int) -> list[BlockRecipe]:
        """Return each block that any architecture has, once."""


Factory = TypeVar("Factory", bound=Callable[..., Any])

_REGISTRY: dict[str, Callable[..., SearchSpace]] = {}


def register_space(name: str) -> Callable[[Factory], Factory]:
    """Register a class or function that makes a search space from options.

    Installed packages do the same with an entry point in the group "querynas.searchspaces".

    Raises:
        SearchSpaceError: If another factory has the name already.
    """

    def register(factory: Factory) -> Factory:
        if _REGISTRY.setdefault(name, factory) is not factory:
            raise SearchSpaceError(f"two search spaces are called '{name}': rename one of them")
        return factory

    return register


def space_names() -> list[str]:
    """List the search spaces that `create_space` knows."""
    return sorted({*_REGISTRY, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def create_space(name: str, **options: Any) -> SearchSpace:
    """Make a search space from its name and its options.

    Args:
        name: A registered name.
        **options: Plain values as read from YAML.

    Raises:
        SearchSpaceError: If the name or an option is unknown (with near matches), or an option
            has a wrong value.
    """
    factory = _REGISTRY.get(name)
    if factory is None:
        points = entry_points(group=ENTRY_POINTS, name=name)
        if not points:
            raise SearchSpaceError(f"no search space '{name}': {suggestion(name, space_names())}")
        factory = next(iter(points)).load()
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known:
            raise SearchSpaceError(
                f"the search space '{name}' has no option '{option}': {suggestion(option, known)}"
            )
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise SearchSpaceError(f"the search space '{name}' needs the option '{option}'")
    return factory(**options)
