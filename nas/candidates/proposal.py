"""A candidate that a study proposes, and what it costs before it has weights."""

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from compat.device import pick_device
from nas.candidates.latency_table import open_table
from nas.candidates.routes import Route
from nas.config.objectives import OBJECTIVES, BudgetConfig, Objective, bounds
from searchspaces import Architecture, QueryModel, measure_latency
from searchspaces.support.seeding import seeded
from searchspaces.timing import Runtime, forward_seconds


@dataclass(frozen=True)
class Proposal:
    """A way to a query model: a route, and the point of its space. Costs are found once.

    Attributes:
        route: How the model gets its weights.
        architecture: The point of the route's space.
        table: File of the study's latency table; None where it has none.
        given: The network where there is one already.
        found: Costs that are known, by the names of their objectives.
    """

    route: Route
    architecture: Architecture
    table: str | None = field(default=None, compare=False)
    given: QueryModel | None = field(default=None, compare=False)
    found: dict[str, float] = field(default_factory=dict, compare=False)

    def with_network(self, model: QueryModel) -> "Proposal":
        """Return the same with its network; what is known of its costs stays."""
        return replace(self, given=model)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one query, by the space's formula."""
        return self.route.space.macs(self.architecture, self.route.dimension)

    @cached_property
    def network(self) -> QueryModel:
        """The network; built with fresh weights when it is first asked for."""
        if self.given is not None:
            return self.given
        with seeded(0):  # as `PrunedSpace.macs` does
            return self.route.untrained(self.architecture).to(pick_device())

    def seconds(self, runtime: Runtime) -> float:
        """Return the median seconds of one query, in ONNX Runtime or on the network's device."""
        # training leaves weights in another memory format than a saved model is loaded with
        alone = copy.deepcopy(self.network).to(memory_format=torch.contiguous_format)
        side = alone.resolution
        if runtime == "pytorch":
            return measure_latency(alone, side)
        return statistics.median(forward_seconds(alone, (3, side, side), runtime))

    def table_seconds(self) -> float:
        """Return the seconds of one query by the study's latency table."""
        assert self.table is not None, "the study file was validated"
        table = open_table(self.table)
        return table.seconds(self.route.space, self.architecture, self.route.dimension)

    def cost(self, objective: Objective) -> float:
        """Return the value of an objective that takes no trained weights."""
        if objective.name not in self.found:
            assert objective.cost is not None, f"{objective.name} takes trained weights"
            self.found[objective.name] = objective.cost(self)
        return self.found[objective.name]

    def costs(self, objectives: Sequence[Objective]) -> dict[str, float]:
        """Return several of them by name."""
        return {each.name: self.cost(each) for each in objectives}

    def excess(self, budget: BudgetConfig) -> Mapping[str, float]:
        """Weigh it by a budget; what that takes, and MACs in any case, is then in `found`.

        Clocks are read only if nothing else exceeds its bound already.

        Returns:
            By the name of the bound, by how much it is exceeded as a share of it: above 0 is
            outside. It is 0 for what was not timed, as some samplers need a value for each bound.
        """
        self.cost(OBJECTIVES["macs"])
        excess: dict[str, float] = {}
        for bound in sorted(bounds(budget), key=lambda each: each.objective.timed):
            if bound.objective.timed and any(value > 0 for value in excess.values()):
                excess[bound.name] = 0.0
            else:
                excess[bound.name] = bound.excess(self.cost(bound.objective))
        return excess

    def within(self, budget: BudgetConfig) -> bool:
        """Whether it keeps a budget."""
        return all(share <= 0 for share in self.excess(budget).values())


def proposal_parameters(proposal: Proposal, *, several: bool) -> dict[str, Any]:
    """Return a proposal's parameters as its Optuna trial has them.

    Args:
        proposal: The proposal.
        several: Whether the study has several routes, so that trials name theirs.
    """
    name = proposal.route.name
    parameters = {f"{name}.{k}": v for k, v in proposal.architecture.params.items()}
    return {**parameters, "route": name} if several else parameters
