"""What any search space can do with a dictionary of Optuna distributions."""

import math
import random
from collections.abc import Iterator, Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from searchspaces.architecture import Architecture, Value
from searchspaces.errors import SearchSpaceError
from searchspaces.support.naming import suggestion

Distributions = Mapping[str, BaseDistribution]


def grid(name: str, distribution: BaseDistribution) -> tuple[Value, ...]:
    """List the values of a parameter, smallest first.

    Raises:
        SearchSpaceError: If the parameter is continuous.
    """
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices  # type: ignore[return-value]
        case IntDistribution(low=low, high=high, step=step):
            return tuple(range(low, high + 1, step))
        case FloatDistribution(low=low, high=high, step=float(step)):
            count = round((high - low) / step) + 1
            return tuple(low + index * step for index in range(count))
    raise SearchSpaceError(
        f"parameter '{name}' is continuous ({distribution}): give it a step, "
        "so that architectures can be listed and compared"
    )


def suggest(trial: BaseTrial, distributions: Distributions) -> dict[str, Value]:
    """Ask an Optuna trial for one value per parameter."""
    params: dict[str, Value] = {}
    for name, distribution in distributions.items():
        match distribution:
            case IntDistribution(low=low, high=high, step=step, log=log):
                params[name] = trial.suggest_int(name, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                params[name] = trial.suggest_float(name, low, high, step=step, log=log)
            case CategoricalDistribution(choices=choices):
                params[name] = trial.suggest_categorical(name, choices)  # type: ignore[assignment]
    return params


def sample(rng: random.Random, distributions: Distributions) -> dict[str, Value]:
    """Draw every parameter uniformly from its grid."""
    return {
        name: rng.choice(grid(name, distribution)) for name, distribution in distributions.items()
    }


def neighbours(
    params: Mapping[str, Value], distributions: Distributions
) -> Iterator[dict[str, Value]]:
    """Change one parameter at a time: one step for a number, any other choice for a category."""
    for name, distribution in distributions.items():
        values = grid(name, distribution)
        here = position(params[name], values)
        for index, value in enumerate(values):
            adjacent = isinstance(distribution, CategoricalDistribution) or abs(index - here) == 1
            if index != here and adjacent:
                yield {**params, name: value}


def size(distributions: Distributions) -> int:
    """Count the architectures."""
    return math.prod(len(grid(name, each)) for name, each in distributions.items())


def check(architecture: Architecture, space: str, distributions: Distributions) -> None:
    """Refuse an architecture that is not a point of the space.

    Raises:
        SearchSpaceError: Names the space, the parameter and the values it may take.
    """
    if architecture.space != space:
        raise SearchSpaceError(
            f"an architecture of the space '{architecture.space}' was given to the space '{space}'"
        )
    for name in architecture.params:
        if name not in distributions:
            raise SearchSpaceError(
                f"the space '{space}' has no parameter '{name}': {suggestion(name, distributions)}"
            )
    for name, distribution in distributions.items():
        values = grid(name, distribution)
        if name not in architecture.params:
            raise SearchSpaceError(
                f"an architecture of the space '{space}' lacks the parameter '{name}': "
                f"give one of {values}"
            )
        if position(architecture.params[name], values) < 0:
            raise SearchSpaceError(
                f"parameter '{name}' of the space '{space}' is {architecture.params[name]!r}: "
                f"give one of {values}"
            )


def position(value: Value, values: tuple[Value, ...]) -> int:
    """Return the index of a value up to round-off, -1 if it is not there."""
    for index, known in enumerate(values):
        if value == known or (
            isinstance(value, float)
            and isinstance(known, float)
            and math.isclose(value, known, abs_tol=1e-9)
        ):
            return index
    return -1
