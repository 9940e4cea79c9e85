"""Checks of the options that a study file gives to a loss."""

from __future__ import annotations

import math

from compat.errors import CompatError


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
        _is_number(value)
        and math.isfinite(value)
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
    """Return the loss option ``value`` if it is a whole number of ``at_least`` or more.

    Raises:
        CompatError: It is not a whole number, or smaller.
    """
    if not (_is_number(value) and isinstance(value, int) and value >= at_least):
        raise CompatError(
            f"The loss option {name} is {value!r}; give a whole number of at least {at_least}."
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
