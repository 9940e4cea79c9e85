"""Options that list the values of a parameter: what they may be, and what follows from them.

An option of a dataclass says its rule in its type, `widths: Widths`. Its parameter is called like
the option in the singular.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, get_type_hints

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import Field

from searchspaces.architecture import Value
from searchspaces.errors import SearchSpaceError
from searchspaces.options import Whole
from searchspaces.support.naming import suggestion
from searchspaces.support.section import MOST_SIDE

MOST_WIDTH = 8192
"""Channels of a layer."""

MOST_LAYERS = 128
"""Layers of a stage, and stages."""

_MOST_VALUES = 256


@dataclass(frozen=True)
class Numbers:
    """A list of numbers; a parameter even where there is only one.

    Args:
        words: What they have to be, for errors.
        allows: Whether a value is that.
    """

    words: str
    allows: Callable[[Any], bool]

    def read(self, values: Any, where: str) -> tuple[Any, ...]:
        """Check the values and sort them."""
        good = isinstance(values, list | tuple) and 0 < len(values) <= _MOST_VALUES
        if not good or not all(map(self.allows, values)) or len(set(values)) < len(values):
            raise SearchSpaceError(f"{where} is {values!r}: give a list of different {self.words}")
        return tuple(sorted(values))

    def distribution(self, values: tuple[Any, ...]) -> BaseDistribution:
        """Return the parameter's values, evenly spaced integers as `IntDistribution`."""
        steps = {second - first for first, second in pairwise(values)}
        if all(isinstance(value, int) for value in values) and len(steps) == 1:
            return IntDistribution(values[0], values[-1], step=steps.pop())
        return CategoricalDistribution(values)


@dataclass(frozen=True)
class Kinds:
    """One kind or a list of kinds; a parameter only where there are several.

    Args:
        known: All kinds, the cheapest first.
    """

    known: tuple[Value, ...]

    def read(self, values: Any, where: str) -> tuple[Any, ...]:
        """Check the values and put them in the order of `known`."""
        several = values if isinstance(values, list | tuple) else [values]
        for value in several:
            if value not in self.known:
                words = [str(each).lower() for each in self.known]
                raise SearchSpaceError(
                    f"{where} is {values!r}: {suggestion(str(value).lower(), words)}"
                )
        if not several or len(set(several)) < len(several):
            raise SearchSpaceError(f"{where} is {values!r}: give one value or different values")
        return tuple(each for each in self.known if each in several)

    def distribution(self, values: tuple[Any, ...]) -> BaseDistribution | None:
        """Return the parameter's values; none where there is nothing to choose."""
        return CategoricalDistribution(values) if len(values) > 1 else None


def whole(value: Any, step: int = 1, most: int = MOST_WIDTH) -> bool:
    """Whether a value is a positive whole number, a multiple of the step, and not too large."""
    return type(value) is int and 0 < value <= most and value % step == 0


def _whole_numbers(words: str, low: int, high: int, step: int = 1) -> Numbers:
    return Numbers(f"{words} from {low} to {high}", lambda v: whole(v, step, high) and v >= low)


def _numbers(low: float, high: float) -> Numbers:
    return Numbers(
        f"numbers from {low} to {high}",
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high,
    )


Width = Annotated[Whole, Field(ge=8, le=MOST_WIDTH, multiple_of=8)]
"""Channels of a layer in all architectures, for `check_options`."""

Count = Annotated[Whole, Field(ge=1, le=MOST_LAYERS)]
"""A number in all architectures, for `check_options`."""

Resolutions = Annotated[tuple[int, ...], _whole_numbers("whole numbers", 8, MOST_SIDE)]
Widths = Annotated[tuple[int, ...], _whole_numbers("multiples of 8", 8, MOST_WIDTH, 8)]
Sides = Annotated[tuple[int, ...], _whole_numbers("whole numbers", 1, MOST_SIDE)]
Counts = Annotated[tuple[int, ...], _whole_numbers("whole numbers", 1, MOST_LAYERS)]
Depths = Counts
Kernels = Annotated[
    tuple[int, ...],
    Numbers("odd whole numbers from 1 to 31", lambda v: whole(v, most=31) and v % 2 == 1),
]
Strides = Annotated[tuple[int, ...], Numbers("values of 1 and 2", lambda v: whole(v) and v <= 2)]
Expansions = Annotated[tuple[float, ...], _numbers(1, 32)]
Ratios = Annotated[tuple[float, ...], _numbers(0.01, 32)]


@cache
def rules(kind: type) -> dict[str, Numbers | Kinds]:
    """Return the rules of a dataclass's options, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: rule
        for field in fields(kind)
        for rule in getattr(hints[field.name], "__metadata__", ())
    }


def read(options: Any, where: str) -> dict[str, tuple[Any, ...]]:
    """Check and order the choices of an instance of a dataclass with rules.

    Args:
        options: The instance.
        where: What names an option in errors, "{} of the space 'mbconv'".

    Raises:
        SearchSpaceError: If a choice is empty, repeated or out of range.
    """
    return {
        option: rule.read(getattr(options, option), where.format(option))
        for option, rule in rules(options.__class__).items()
    }


def distributions(options: Any, prefix: str = "") -> dict[str, BaseDistribution]:
    """Return one distribution per parameter; those of the stages are called "stage1_width"."""
    found: dict[str, BaseDistribution] = {}
    for field in fields(options):
        values = getattr(options, field.name)
        if field.name == "stages":
            for index, stage in enumerate(values, 1):
                found |= distributions(stage, f"{prefix}stage{index}_")
        elif rule := rules(options.__class__).get(field.name):
            each = rule.distribution(values)
            if each is not None:
                found[prefix + _parameter(field.name)] = each
    return found


def chosen(options: Any, params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the value of every choice, by the name of its parameter without the prefix."""
    return {
        name: params.get(prefix + name, getattr(options, option)[0])
        for option, name in _parameters(options.__class__)
    }


@cache
def _parameters(kind: type) -> list[tuple[str, str]]:
    return [(option, _parameter(option)) for option in rules(kind)]


def _parameter(option: str) -> str:
    """Name an option's parameter: "widths" lists the values of "width", "patches" of "patch"."""
    return re.sub("(?<=ch)es$|s$", "", option)
