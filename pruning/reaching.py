"""Cutting down to a target: a share of the MACs, MACs, parameters or milliseconds."""

import copy
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pruning.cutting import Rule, Scope, cut, cutting
from pruning.errors import PruningError
from pruning.importance import BatchLoss, Price, replayed
from pruning.stages import stages
from searchspaces import QueryModel, count_macs, count_parameters, measure_latency

logger = logging.getLogger("querynas")

Quantity = Literal["macs", "parameters", "latency"]
Ratios = Mapping[str, float]

TOLERANCE = 0.02
"""How far below its target a model may stay, as a share of the target."""

_MOST = 0.999  # leaves every layer at its narrowest
_PROBES = 48  # cuts that one target may take; a cut takes a few tenths of a second
_FINEST = 1 / 512
_SIZES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_FORMS = (
    (re.compile(r"([\d.]+)x"), "macs", True),
    (re.compile(r"([\d.]+)([kmg]?)(?:macs)?"), "macs", False),
    (re.compile(r"([\d.]+)([kmg]?)param(?:eter)?s"), "parameters", False),
    (re.compile(r"([\d.]+)ms"), "latency", False),
)


@dataclass(frozen=True)
class Target:
    """What a model may cost after it was cut.

    Attributes:
        quantity: "macs" (fvcore), "parameters", or "latency": the median seconds of one query in
            PyTorch, batch of 1, one CPU thread.
        value: At most so many MACs, parameters or seconds; or a share of the uncut model's.
        relative: Whether ``value`` is a share.
    """

    quantity: Quantity
    value: float
    relative: bool = False

    def of(self, model: QueryModel) -> "Target":
        """Return the same target in absolute figures, shares being of this model."""
        return self.of_figure(figure(model, self.quantity)) if self.relative else self

    def of_figure(self, whole: float) -> "Target":
        """Return the same target in absolute figures, shares being of this one."""
        return Target(self.quantity, self.value * whole) if self.relative else self

    def __str__(self) -> str:
        if self.relative:
            return f"{self.value:g} of the {self.quantity}"
        return words(self.quantity, self.value)


def parse_target(text: str) -> Target:
    """Read "0.25x" (of the MACs), "50M" or "1.2G" (MACs), "2Mparams" or "5ms".

    Raises:
        PruningError: If the text is none of these, or the figure is 0 or a share of 1 or more.
    """
    for form, quantity, relative in _FORMS:
        match = form.fullmatch(text.strip().lower())
        if match is None or match[1].count(".") > 1 or match[1] == ".":
            continue
        unit = 1e-3 if quantity == "latency" else _SIZES[match[2] if form.groups > 1 else ""]
        value = float(match[1]) * unit
        if value > 0 and not (relative and value >= 1):
            return Target(quantity, value, relative)  # type: ignore[arg-type]
    raise PruningError(
        f"'{text}' is no target: give a share of the MACs below 1 (0.25x), MACs (50M, 1.2G), "
        "parameters (2Mparams) or milliseconds (5ms)"
    )


def figure(model: QueryModel, quantity: Quantity) -> float:
    """Return a model's MACs, parameters or seconds, as `Target` defines them."""
    match quantity:
        case "macs":
            return count_macs(model, model.resolution)
        case "parameters":
            return count_parameters(model)
    alone = copy.deepcopy(model).cpu() if model.mean.is_cuda else model
    # disturbances only ever slow a run down
    return min(measure_latency(alone, model.resolution, runs=15) for _ in range(3))


def words(quantity: Quantity, value: float) -> str:
    """Return a figure with its unit, "9.47M MACs"."""
    if quantity == "latency":
        return f"{value * 1e3:.3g} ms"
    size = next((size for size in "gmk" if value >= 0.9995 * _SIZES[size]), "")
    unit = "MACs" if quantity == "macs" else "parameters"
    return f"{value / _SIZES[size]:.3g}{size.replace('g', 'G').replace('m', 'M')} {unit}"


def lowest(
    model: QueryModel, quantity: Quantity, *, scope: Scope = "local", round_to: int = 8
) -> float:
    """Return the figure of the model with every layer at its narrowest; trains nothing.

    Raises:
        PruningError: If the model cannot be cut.
    """
    return figure(cut(model, _MOST, scope=scope, round_to=round_to), quantity)


def check_reachable(
    model: QueryModel, target: Target, *, scope: Scope = "local", round_to: int = 8
) -> Target:
    """Return the target in absolute figures if cutting can reach it.

    Raises:
        PruningError: If the model costs no more already, or costs more with every layer at its
            narrowest; the sentence names the lowest figure.
    """
    return _reachable(model, target, figure(model, target.quantity), scope, round_to)


def _reachable(
    model: QueryModel, target: Target, now: float, scope: Scope, round_to: int
) -> Target:
    bound = target.of_figure(now)
    if now <= bound.value:
        raise PruningError(
            f"the model has {words(bound.quantity, now)}, which is not above the target of "
            f"{bound}: nothing has to be cut"
        )
    least = lowest(model, bound.quantity, scope=scope, round_to=round_to)
    if least > bound.value:
        raise PruningError(
            f"the target of {bound} cannot be reached: the lowest that cutting this model can "
            f"reach is {words(bound.quantity, least)}; raise the target, lower the resolution or "
            "take a smaller model"
        )
    return bound


def reach(
    model: QueryModel,
    target: Target,
    *,
    criterion: str = "magnitude",
    scope: Scope = "local",
    priced: bool = True,
    round_to: int = 8,
    batch_loss: BatchLoss | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> QueryModel:
    """Return a copy that is cut down to a target: at most that, and closely below it.

    One ratio for all stages is searched for. Widths are multiples of ``round_to``, so figures come
    in steps; where none of them is close enough, the model that is too large by one step is cut
    further in single stages. Every probe cuts the same uncut model, and ``batch_loss`` is
    differentiated once for all of them.

    Args:
        model: The model; it is not changed.
        target: The figure to reach; a share is of this model.
        criterion, scope, round_to, batch_loss, seed: As for `cut`.
        priced: Whether channels are ranked by the change of the loss for each MAC, or for each
            parameter where those are the target; see ``price`` of `cut`.
        tolerance: A share of the target.

    Returns:
        The closest model below the target that was found; a warning is logged where it is farther
        off than ``tolerance``.

    Raises:
        PruningError: If the target cannot be reached, or the model cannot be cut.
    """
    uncut = figure(model, target.quantity)
    bound = _reachable(model, target, uncut, scope, round_to)
    names = list(stages(model))
    price: Price | None = "parameters" if bound.quantity == "parameters" else "macs"
    if not priced:
        price = None

    search = _Search(bound, tolerance)

    def trying(start: QueryModel, scope: Scope) -> Callable[[Ratios], QueryModel]:
        rated = None if batch_loss is None else replayed(batch_loss, criterion)
        cut_by = cutting(start, Rule(criterion, scope, price, round_to, rated, seed))

        def attempt(ratios: Ratios) -> QueryModel:
            try:
                return cut_by(ratios)
            except PruningError:
                if search.best is None:
                    raise
                return start  # a higher ratio did work: this one is too low to cut anything

        return attempt

    by_scope = trying(model, scope)
    low = _close_in(search, by_scope, lambda ratio: dict.fromkeys(names, ratio), uncut)
    if not search.done:
        larger = by_scope(dict.fromkeys(names, low))
        _trim(search, trying(larger, "local"), names, figure(larger, bound.quantity))
    assert search.best is not None  # the narrowest model fits
    if search.best_figure < (1 - tolerance) * bound.value:
        logger.warning(
            "The closest to %s that this model's widths allow is %s.",
            bound,
            words(bound.quantity, search.best_figure),
        )
    if bound.quantity != "macs":
        after, before = (count_macs(each, model.resolution) for each in (search.best, model))
        if after >= before:
            raise PruningError(
                "the cut model has no fewer MACs than before: choose another criterion"
            )
    return search.best


@dataclass
class _Search:
    """The closest model below a bound among those tried."""

    bound: Target
    tolerance: float
    best: QueryModel | None = None
    best_figure: float = 0.0
    probes: int = 0

    @property
    def done(self) -> bool:
        close = self.best_figure >= (1 - self.tolerance) * self.bound.value
        return self.best is not None and (close or self.probes >= _PROBES)

    def measure(self, model: QueryModel) -> float:
        """Return the model's figure, and remember the model if it is the closest."""
        self.probes += 1
        value = figure(model, self.bound.quantity)
        if self.best_figure < value <= self.bound.value:
            self.best, self.best_figure = model, value
        return value


def _close_in(
    search: _Search,
    attempt: Callable[[Ratios], QueryModel],
    at: Callable[[float], Ratios],
    uncut: float,
    *,
    high: float = _MOST,
) -> float:
    """Narrow an interval down to the step at which the model begins to fit.

    Args:
        search: Keeps the closest model.
        attempt: Cuts by ratios.
        at: The ratios of the stages for one number.
        uncut: The figure for number 0, too large.
        high: Number at the other end of the interval.

    Returns:
        The highest number found to be too low.
    """
    low, above, below = 0.0, uncut, search.measure(attempt(at(high)))
    while not search.done and above > search.bound.value >= below and high - low > _FINEST:
        # MACs go with the square of the widths, so their root is nearly straight
        roots = [math.sqrt(each) for each in (above, search.bound.value, below)]
        share = (roots[0] - roots[1]) / (roots[0] - roots[2])
        number = low + (high - low) * min(max(share, 0.15), 0.85)
        value = search.measure(attempt(at(number)))
        if value <= search.bound.value:
            high, below = number, value
        else:
            low, above = number, min(value, above)
    return low


def _trim(
    search: _Search, attempt: Callable[[Ratios], QueryModel], names: list[str], uncut: float
) -> None:
    """Cut a model that is too large by one step in one stage after the other.

    Every stage is cut as far as leaves the model too large, so that the next one has less to do.
    """
    ratios: dict[str, float] = {}
    for name in reversed(names):
        if search.done:
            return
        low = _close_in(search, attempt, partial(_with, dict(ratios), name), uncut, high=0.5)
        if low:
            ratios[name] = low
            uncut = figure(attempt(ratios), search.bound.quantity)


def _with(ratios: Ratios, name: str, ratio: float) -> Ratios:
    return {**ratios, name: ratio}
