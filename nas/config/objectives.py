"""What a study can optimise and bound: every figure of a candidate, by name.

A further cost is one more entry of `OBJECTIVES`. Its name is then an objective of study files, its
bound a field of their `budget`, and its value is kept, printed and reported with every candidate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, create_model

import searchspaces  # whose names are loaded when a cost is measured
from nas.config.budget import format_macs, parse_macs
from searchspaces.support.section import Section

if TYPE_CHECKING:
    from compat.tasks import Judge
    from searchspaces import QueryModel
    from searchspaces.timing import Runtime

Unit = Literal["mAP", "MACs", "parameters", "activations", "bytes", "seconds"]

_WORST = {"minimize": float("inf"), "maximize": 0.0}


class Unscored(Protocol):
    """A candidate before it has weights: all that its costs depend on."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one query, by the formula of its search space."""

    @property
    def network(self) -> "QueryModel":
        """The network, with whatever weights."""

    def seconds(self, runtime: "Runtime") -> float:
        """Return the median seconds of one query."""

    def table_seconds(self) -> float:
        """Return the seconds of one query by the study's latency table."""


@dataclass(frozen=True)
class Objective:
    """One figure of a candidate.

    Attributes:
        name: As in study files, as Optuna's metric, and as `Record.value` knows it.
        direction: Which way is better.
        unit: Of its values.
        words: A heading for people.
        cost: How it is found from the architecture; None for what takes trained weights.
        timed: Whether a clock is read for it, so that it takes its time and varies.
        always: Whether it is known of every candidate; others where a study asks for them.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    unit: Unit
    words: str
    cost: Callable[[Unscored], float] | None = None
    timed: bool = False
    always: bool = False

    @property
    def worst(self) -> float:
        """The value of a candidate that is never measured."""
        return _WORST[self.direction]

    def text(self, value: float) -> str:
        """Return a value for people to read, "9.47M", "1.23 ms", "310kB" or "0.8123"."""
        match self.unit:
            case "mAP":
                return f"{value:.4f}"
            case "seconds":
                return f"{value * 1e3:.3g} ms"
            case "bytes":
                return f"{format_macs(value)}B"
        return format_macs(value)


OBJECTIVES: Mapping[str, Objective] = {
    each.name: each
    for each in (
        Objective("macs", "minimize", "MACs", "MACs", lambda c: c.macs, always=True),
        Objective(
            "parameters",
            "minimize",
            "parameters",
            "params",
            lambda c: searchspaces.count_parameters(c.network),
            always=True,
        ),
        Objective(
            "latency", "minimize", "seconds", "latency", lambda c: c.seconds("pytorch"), timed=True
        ),
        Objective(
            "onnx_latency",
            "minimize",
            "seconds",
            "ONNX latency",
            lambda c: c.seconds("onnxruntime"),
            timed=True,
        ),
        Objective(
            "table_latency", "minimize", "seconds", "latency by table", lambda c: c.table_seconds()
        ),
        Objective(
            "activations",
            "minimize",
            "activations",
            "activations",
            lambda c: searchspaces.count_activations(c.network, c.network.resolution),
        ),
        Objective(
            "int8_bytes",
            "minimize",
            "bytes",
            "int8 size",
            lambda c: searchspaces.int8_bytes(c.network),
        ),
        Objective("cross_test", "maximize", "mAP", "cross-test"),
        Objective("agreement", "maximize", "mAP", "agreement"),
        Objective("self_test", "maximize", "mAP", "self-test"),
        Objective("product", "maximize", "mAP", "self-test × cross-test"),
    )
}
"""Every objective by its name. CMP-NAS (Duggal et al., CVPR 2021) calls `self_test` R1,
`cross_test` R2 and `product` R3."""

ACCURACY: Mapping["Judge", Objective] = {
    "labels": OBJECTIVES["cross_test"],
    "ranking": OBJECTIVES["agreement"],
}
"""What query models are chosen by, by what judges them."""

COSTS = tuple(each for each in OBJECTIVES.values() if each.cost is not None)
"""Those that are known before there are weights, and so can be bounded."""

if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]


def _quantity(value: Any) -> Any:
    return parse_macs(value.removesuffix("B")) if isinstance(value, str) else value


def _milliseconds(value: Any) -> Any:
    return value.removesuffix("ms") if isinstance(value, str) else value


Quantity = Annotated[int, BeforeValidator(_quantity), Field(gt=0, le=10**18)]
Milliseconds = Annotated[float, BeforeValidator(_milliseconds), Field(gt=0, le=1e9)]


def _limit(cost: Objective) -> Any:
    """Type and default of the budget's field that bounds a cost from above."""
    kind: Any = Milliseconds if cost.unit == "seconds" else Quantity
    return kind | None, None


_Limits: Any = create_model(
    "_Limits", __base__=Section, **{f"max_{each.name}": _limit(each) for each in COSTS}
)


class BudgetConfig(_Limits):
    """Bounds on a candidate's costs, each called after the objective that it bounds.

    Every cost has a `max_`. Counts and bytes understand '50M' and '1.2G'; latencies are
    milliseconds, '5ms' or 5.
    """

    min_macs: Quantity | None = None
    max_macs: Quantity | None = None


@dataclass(frozen=True)
class Bound:
    """A limit that a study's budget sets on a cost.

    Attributes:
        name: Of the budget's field, "max_macs".
        objective: What is bounded.
        limit: In the objective's unit.
    """

    name: str
    objective: Objective
    limit: float

    def excess(self, value: float) -> float:
        """Return by how much a value leaves the bound as a share of it; 0 or less is within."""
        return 1 - value / self.limit if self.name.startswith("min_") else value / self.limit - 1


def bounds(budget: BudgetConfig) -> list[Bound]:
    """Return the bounds that a budget sets; its times are milliseconds."""
    found = []
    for name, limit in budget.model_dump(exclude_none=True).items():
        objective = OBJECTIVES[name.partition("_")[2]]
        found.append(Bound(name, objective, limit * (1e-3 if objective.unit == "seconds" else 1)))
    return found
