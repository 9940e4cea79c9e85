"""What a study can optimise and bound: every figure of a candidate, by name."""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from nas.candidates.latency_table import open_table
from nas.config.budget import format_macs
from nas.config.study import BudgetConfig, StudyConfig
from pruning import PrunedSpace
from searchspaces import Architecture, QueryModel, SearchSpace, count_parameters, measure_latency
from searchspaces.cost import count_activations, int8_bytes
from searchspaces.timing import forward_seconds

Unit = Literal["mAP", "MACs", "parameters", "activations", "bytes", "seconds"]

_WORST = {"minimize": float("inf"), "maximize": 0.0}


@dataclass(frozen=True, eq=False)
class Subject:
    """A candidate before it has weights: all that its costs depend on.

    Attributes:
        space: Its search space.
        architecture: The point of the space.
        dimension: Number of dimensions of the gallery space.
        device: Where `latency` is measured.
        table: File of the latency table; None where the study has none.
        given: Its network where there is one already.
    """

    space: SearchSpace
    architecture: Architecture
    dimension: int
    device: torch.device
    table: str | None = None
    given: QueryModel | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one query, by the space's formula."""
        return self.space.macs(self.architecture, self.dimension)

    @cached_property
    def network(self) -> QueryModel:
        """The network; built with fresh weights on the device when it is first asked for."""
        if self.given is not None:
            return self.given
        space = self.space
        if isinstance(space, PrunedSpace):  # published weights would be fetched for nothing
            space = dataclasses.replace(space, pretrained=False, checkpoint=None)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # as `PrunedSpace.macs` does
            return space.build(self.architecture, self.dimension).to(self.device)


Cost = Callable[[Subject], float]


@dataclass(frozen=True)
class Objective:
    """One figure of a candidate.

    Attributes:
        name: As in study files, as Optuna's metric, and as the attribute of a `Record`.
        direction: Which way is better.
        unit: Of its values.
        words: A heading for people.
        cost: How it is found from the architecture; None for what takes trained weights.
        timed: Whether a clock is read for it, so that it takes its time and varies.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    unit: Unit
    words: str
    cost: Cost | None = None
    timed: bool = False

    @property
    def worst(self) -> float:
        """The value of a candidate that is never measured."""
        return _WORST[self.direction]

    def of(self, record: object) -> float:
        """Return the value of a scored candidate.

        Raises:
            TypeError: The study did not ask for this figure.
        """
        return float(getattr(record, self.name))

    def cost_of(self, subject: Subject) -> float:
        """Return the value of a candidate that may have no weights yet; for costs only."""
        assert self.cost is not None, f"{self.name} takes trained weights"
        return self.cost(subject)

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


def _latency(subject: Subject) -> float:
    # training leaves weights in another memory format than a saved model is loaded with
    alone = copy.deepcopy(subject.network).to(memory_format=torch.contiguous_format)
    return measure_latency(alone, alone.resolution)


def _onnx_latency(subject: Subject) -> float:
    side = subject.network.resolution
    return statistics.median(forward_seconds(subject.network, (3, side, side), "onnxruntime"))


def _table_latency(subject: Subject) -> float:
    assert subject.table is not None, "the study file was validated"
    table = open_table(subject.table)
    return table.seconds(subject.space, subject.architecture, subject.dimension)


def _of_image(count: Callable[[QueryModel, int], int]) -> Cost:
    return lambda subject: count(subject.network, subject.network.resolution)


OBJECTIVES: Mapping[str, Objective] = {
    each.name: each
    for each in (
        Objective("macs", "minimize", "MACs", "MACs", lambda subject: subject.macs),
        Objective(
            "parameters",
            "minimize",
            "parameters",
            "params",
            lambda subject: count_parameters(subject.network),
        ),
        Objective(
            "activations", "minimize", "activations", "activations", _of_image(count_activations)
        ),
        Objective(
            "int8_bytes",
            "minimize",
            "bytes",
            "int8 size",
            lambda subject: int8_bytes(subject.network),
        ),
        Objective("latency", "minimize", "seconds", "latency", _latency, timed=True),
        Objective("onnx_latency", "minimize", "seconds", "ONNX latency", _onnx_latency, timed=True),
        Objective("table_latency", "minimize", "seconds", "latency by table", _table_latency),
        Objective("cross_test", "maximize", "mAP", "cross-test"),
        Objective("self_test", "maximize", "mAP", "self-test"),
        Objective("product", "maximize", "mAP", "self-test × cross-test"),
    )
}
"""Every objective by its name. CMP-NAS (Duggal et al., CVPR 2021) calls `self_test` R1,
`cross_test` R2 and `product` R3."""

_ALWAYS = ("macs", "parameters")  # every record has them


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


def asked(config: StudyConfig) -> list[Objective]:
    """Return the costs that a study has to know of each candidate, beside those always known."""
    names = {*config.objectives, *(bound.objective.name for bound in bounds(config.budget))}
    return [
        each
        for name, each in OBJECTIVES.items()
        if name in names and name not in _ALWAYS and each.cost is not None
    ]


def weigh(subject: Subject, budget: BudgetConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Find what a budget asks for, before there are weights.

    Clocks are read only if nothing else exceeds its bound already.

    Returns:
        The costs by objective, MACs always among them, and the excess by bound: above 0 outside.
        The excess of what was not timed is 0, as some samplers need a value for each bound.
    """
    costs: dict[str, float] = {"macs": subject.macs}
    excess: dict[str, float] = {}
    for bound in sorted(bounds(budget), key=lambda each: each.objective.timed):
        if bound.objective.timed and any(value > 0 for value in excess.values()):
            excess[bound.name] = 0.0
            continue
        name = bound.objective.name
        if name not in costs:
            costs[name] = bound.objective.cost_of(subject)
        excess[bound.name] = bound.excess(costs[name])
    return costs, excess
