"""Several search spaces as one: which space is a choice, and only its parameters follow."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import QueryModel
from searchspaces.space import (
    BlockRecipe,
    BlockwiseSpace,
    SearchSpace,
    create_space,
)


class PrefixedTrial:
    """An Optuna trial whose parameters carry the name of their search space.

    Two spaces may both have a `resolution` with other choices, which Optuna forbids under one name.

    Args:
        trial: An Optuna trial, or another prefixed one.
        prefix: What comes before the dot.
    """

    def __init__(self, trial: Any, prefix: str) -> None:
        self._trial = trial
        self._prefix = prefix

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._trial.suggest_categorical(f"{self._prefix}.{name}", choices)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        return self._trial.suggest_int(f"{self._prefix}.{name}", low, high, **options)

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        return self._trial.suggest_float(f"{self._prefix}.{name}", low, high, **options)


@dataclass(frozen=True)
class UnionSpace:
    """The architectures of several search spaces.

    The parameter `space` names one of them; its own parameters follow with that name before them
    ("small.resolution"), those of the others are absent. Unions may hold unions. A union has blocks
    if all of its spaces have.

    Args:
        spaces: By a label of the user's choice, the name of a registered space as "space" and its
            options beside it.

    Raises:
        SearchSpaceError: If there is no space, a label has a dot, or a space cannot be made; names
            the label.
    """

    name: ClassVar[str] = "union"

    spaces: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if not isinstance(self.spaces, Mapping) or not self.spaces:
            raise SearchSpaceError(
                f"'spaces' of the space 'union' is {self.spaces!r}: give at least one search space "
                "by a label, as in {small: {space: mbconv}}"
            )
        _ = self.members  # a wrong option should not wait for the first architecture

    @cached_property
    def members(self) -> dict[str, SearchSpace]:
        """The search spaces by label."""
        return {label: _member(label, options) for label, options in self.spaces.items()}

    @cached_property
    def _choice(self) -> CategoricalDistribution:
        return CategoricalDistribution(tuple(self.members))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return `space`, and the parameters of all spaces with their label and a dot before."""
        return {
            "space": self._choice,
            **{
                f"{label}.{name}": distribution
                for label, space in self.members.items()
                for name, distribution in space.distributions().items()
            },
        }

    def suggest(self, trial: BaseTrial) -> Architecture:
        """Let an Optuna trial choose a space, and then the parameters of that space alone."""
        label = trial.suggest_categorical("space", self._choice.choices)
        assert isinstance(label, str)
        inner = PrefixedTrial(trial, label)
        return self._outer(label, self.members[label].suggest(cast(BaseTrial, inner)))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a space uniformly, and an architecture of it."""
        label = rng.choice(list(self.members))
        return self._outer(label, self.members[label].sample(rng))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the neighbours within the space, and one architecture of each other space.

        That one is drawn at random, and is the same whenever this architecture is asked.
        """
        here, inner = self.split(architecture)
        for neighbour in self.members[here].neighbours(inner):
            yield self._outer(here, neighbour)
        for label, space in self.members.items():
            if label != here:
                yield self._outer(
                    label, space.sample(random.Random(f"{architecture.digest} {label}"))
                )

    def size(self) -> int:
        """Count the architectures."""
        return sum(space.size() for space in self.members.values())

    def macs(self, architecture: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image as the architecture's own space does."""
        label, inner = self.split(architecture)
        return self.members[label].macs(inner, dimension)

    def build(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Make the network as the architecture's own space does; its `origin` names that space."""
        label, inner = self.split(architecture)
        return self.members[label].build(inner, dimension)

    def blocks(self, architecture: Architecture, dimension: int) -> list[BlockRecipe]:
        """Split a network into its blocks as the architecture's own space does.

        Raises:
            SearchSpaceError: If that space does not say which blocks its networks consist of.
        """
        label, inner = self.split(architecture)
        return self._blockwise(label).blocks(inner, dimension)

    def every_block(self, dimension: int) -> list[BlockRecipe]:
        """Return each block that any architecture has, once.

        Raises:
            SearchSpaceError: If a space does not say which blocks its networks consist of.
        """
        spaces = [self._blockwise(label) for label in self.members]
        recipes = (recipe for space in spaces for recipe in space.every_block(dimension))
        return list({recipe.key: recipe for recipe in recipes}.values())

    def split(self, architecture: Architecture) -> tuple[str, Architecture]:
        """Return the label of an architecture's own space, and what it is in that space.

        Raises:
            SearchSpaceError: If the architecture is not of this union, or has parameters of
                another of its spaces. Those of its own space are checked there.
        """
        chosen = {name: value for name, value in architecture.params.items() if name == "space"}
        parameters.check(
            Architecture(architecture.space, chosen), self.name, {"space": self._choice}
        )
        label = str(chosen["space"])
        inner = {}
        for name, value in architecture.params.items():
            owner, _, own = name.partition(".")
            if owner == label:
                inner[own] = value
            elif name != "space":
                raise SearchSpaceError(
                    f"an architecture of the space 'union' chose '{label}', but has the parameter "
                    f"'{name}': give those alone that begin with '{label}.'"
                )
        return label, Architecture(self.members[label].name, inner)

    def _blockwise(self, label: str) -> BlockwiseSpace:
        space = self.members[label]
        if not isinstance(space, BlockwiseSpace):
            raise SearchSpaceError(
                f"'{label}' of the space 'union' is a space '{space.name}', which does not say "
                "which blocks its networks consist of, so the union does not either: take it out "
                "of the union, or do without a latency table"
            )
        return space

    def _outer(self, label: str, inner: Architecture) -> Architecture:
        return Architecture(
            self.name,
            {"space": label, **{f"{label}.{name}": v for name, v in inner.params.items()}},
        )


def _member(label: str, options: Mapping[str, Any]) -> SearchSpace:
    where = f"'{label}' of the space 'union'"
    if not isinstance(label, str) or not label or "." in label:
        raise SearchSpaceError(f"{where} is no label: give a text without dots")
    if not isinstance(options, Mapping) or not isinstance(options.get("space"), str):
        raise SearchSpaceError(
            f"{where} is {options!r}: give the name of a search space as 'space', and its options "
            "beside it"
        )
    rest = {name: value for name, value in options.items() if name != "space"}
    try:
        return create_space(options["space"], **rest)
    except ValueError as error:  # spaces outside this package raise types of their own
        raise SearchSpaceError(f"{where}: {error}") from error
