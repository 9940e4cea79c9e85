"""Checks of the options that a study file gives to a loss."""

from __future__ import annotations

import sys
from typing import Any

from compat.errors import CompatError

_MOST = 1_000_000


def number(
    name: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return the loss option ``value`` if it is a finite number inside its bounds.

    Raises:
        CompatError: It is not a number, or NaN, infinite or out of bounds.
    """
    fits = (
        is_number(value)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        bounds = {"of at least": at_least, "above": above, "below": below}
        rule = " and ".join(
            f"{words} {bound:.4g}" for words, bound in bounds.items() if bound is not None
        )
        raise CompatError(f"The loss option {name} is {value!r}; give a number {rule}.")
    return value


def whole(name: str, value: int, *, at_least: int) -> int:
    """Return the loss option ``value`` if it is a whole number from ``at_least`` to a million.

    Raises:
        CompatError: It is not a whole number, or out of bounds.
    """
    if not (is_number(value) and isinstance(value, int) and at_least <= value <= _MOST):
        raise CompatError(
            f"The loss option {name} is {value!r}; give a whole number of at least {at_least} and "
            f"at most {_MOST:,}."
        )
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that fits a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max
