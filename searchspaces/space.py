"""What a search space is, and how one is found by its name."""

import inspect
import random
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, runtime_checkable

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from searchspaces.architecture import Architecture
from searchspaces.errors import SearchSpaceError
from searchspaces.parameters import near
from searchspaces.query_model import QueryModel

ENTRY_POINTS = "querynas.searchspaces"


@runtime_checkable
class SearchSpace(Protocol):
    """A set of query networks with ordinary Optuna distributions as its axes.

    By convention the parameter `resolution` is the side of the square input image in pixels.
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

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """Yield the architectures that differ from this one in one parameter."""

    def macs(self, arch: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image, the projection to `dimension` included."""

    def build(self, arch: Architecture, dimension: int) -> QueryModel:
        """Make the network with fresh weights."""


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
            raise SearchSpaceError(f"no search space '{name}': {near(name, space_names())}")
        factory = next(iter(points)).load()
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known:
            raise SearchSpaceError(
                f"the search space '{name}' has no option '{option}': {near(option, list(known))}"
            )
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise SearchSpaceError(f"the search space '{name}' needs the option '{option}'")
    return factory(**options)
