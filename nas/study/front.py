"""Scored candidates and the Pareto front among them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from compat.tasks.retrieval import Judge
from nas.config.objectives import ACCURACY, COSTS, Objective
from nas.errors import StudyError
from nas.study.dominance import dominated
from searchspaces import Architecture
from searchspaces.support.problems import problem_of

ADAPTED = "adapted"
"""Fidelity of a pretrained backbone with a fitted projection, which nothing was trained for."""

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


def _with_those_always_known(costs: Mapping[str, float]) -> Mapping[str, float]:
    for each in COSTS:
        if each.always and each.name not in costs:
            raise StudyError(f"{each.name} is missing")
        if costs.get(each.name, 0) < 0 and each.unit != "seconds":
            raise StudyError(f"{each.name} is {costs[each.name]}, below 0")
    return costs


Costs = Annotated[Mapping[str, int | Seconds], AfterValidator(_with_those_always_known)]


@dataclass(frozen=True)
class Record:
    """What a study keeps of one scored candidate, all of it on the validation classes.

    Attributes:
        trial: Number of the Optuna trial.
        route: Name of its route, which is that of its space in the study file.
        fidelity: How its weights came about: "shared weights", "re-aligned", "aligned alone",
            "aligned on", "finished" or "adapted".
        architecture: The point of the search space.
        resolution: Side of the square input in pixels.
        costs: Value of every cost that is known of it, by the names in `nas.config.objectives`;
            MACs (fvcore; of a slice by the space's formula) and parameters always.
        cross_test: Asymmetric mAP M(q, g); None without labels.
        interval: 95% bootstrap interval of ``accuracy``.
        self_test: M(q, q); None for a slice of a supernet whose study does not ask for it, and
            without labels.
        paragon: M(g, g), by the same judge as ``accuracy``.
        parent: Trial that a finished model was grown from.
        judge: What the study judges by.
        agreement: M(q, g) with what the gallery network finds first as right; None where it was not
            measured.
        overlap: Share of the first ten results that query model and gallery network have in common;
            None where ``agreement`` is.
    """

    trial: int
    route: str
    fidelity: str
    architecture: Architecture
    resolution: Count
    costs: Costs
    cross_test: Share | None
    interval: tuple[Share, Share]
    self_test: Share | None
    paragon: Share
    parent: int | None = None
    judge: Judge = "labels"
    agreement: Share | None = None
    overlap: Share | None = None

    @property
    def accuracy(self) -> float:
        """What the study chooses by: the cross-test, or the agreement."""
        return self.value(ACCURACY[self.judge])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one query."""
        return int(self.costs["macs"])

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return int(self.costs["parameters"])

    @property
    def adapted(self) -> bool:
        """Whether nothing was trained for it."""
        return self.fidelity == ADAPTED

    @property
    def product(self) -> float | None:
        """M(q, q) · M(q, g), the reward R3 of CMP-NAS (Duggal et al., CVPR 2021).

        None without a self-test.
        """
        if self.self_test is None or self.cross_test is None:
            return None
        return self.self_test * self.cross_test

    def value(self, objective: Objective) -> float:
        """Return the figure that a study optimises.

        Raises:
            KeyError: The study did not ask for this cost.
        """
        if objective.cost is not None:
            return float(self.costs[objective.name])
        return float(getattr(self, objective.name))

    def attributes(self) -> dict[str, Any]:
        """Return JSON-able user attributes for the Optuna trial, every cost one of its own."""
        content = {field: getattr(self, field) for field in self.__dataclass_fields__}
        content["architecture"] = json.loads(self.architecture.to_json())
        content["interval"] = list(self.interval)
        content |= content.pop("costs")
        del content["trial"]
        return content

    @classmethod
    def of_trial(cls, trial: FrozenTrial) -> "Record":
        """Read the record back from a trial that :meth:`attributes` was stored in.

        Raises:
            StudyError: An attribute is missing, of the wrong kind or out of range.
        """
        attributes = trial.user_attrs
        content = {k: v for k, v in attributes.items() if k in cls.__dataclass_fields__}
        known = {each.name: attributes.get(each.name) for each in COSTS}
        costs = {name: value for name, value in known.items() if value is not None}
        try:
            record = _RECORD.validate_python({**content, "trial": trial.number, "costs": costs})
        except ValidationError as error:
            raise StudyError(f"trial {trial.number}: {problem_of(error, cls)}") from error
        accuracy = ACCURACY[record.judge].name
        if getattr(record, accuracy) is None:
            raise StudyError(f"trial {trial.number}: {accuracy} is missing")
        return record


_RECORD = TypeAdapter(Record)


def is_scored(trial: FrozenTrial) -> bool:
    """Whether a trial ended with a measured candidate (infeasible ones are never measured)."""
    return trial.state == TrialState.COMPLETE and "cross_test" in trial.user_attrs


def scored(study: optuna.Study) -> list[Record]:
    """Return every scored candidate of a study, by trial number."""
    return [Record.of_trial(t) for t in study.get_trials(deepcopy=False) if is_scored(t)]


def pareto_front(study: optuna.Study, *, finished: bool = True) -> list[Record]:
    """Return the non-dominated scored candidates under the study's objectives, by MACs.

    Of candidates with equal objective values the first one stays. ``finished=False`` leaves out
    the models that were aligned on after the search.
    """
    trials = [t for t in study.get_trials(deepcopy=False) if is_scored(t)]
    if not finished:
        trials = [t for t in trials if t.user_attrs["parent"] is None]
    signs = [1 if d == optuna.study.StudyDirection.MINIMIZE else -1 for d in study.directions]
    losses = np.array([t.values for t in trials]).reshape(len(trials), len(signs)) * signs
    best = zip(trials, losses.tolist(), dominated(losses), strict=True)
    kept = {tuple(values): t for t, values, worse in reversed(list(best)) if not worse}
    return sorted((Record.of_trial(t) for t in kept.values()), key=lambda r: (r.macs, r.trial))


def ancestors(record: Record, by_trial: Mapping[int, Record]) -> list[Record]:
    """Return what a model was on the rungs below, the nearest first."""
    found = []
    while record.parent is not None:
        record = by_trial[record.parent]
        found.append(record)
    return found


def select(
    records: Sequence[Record], *, max_macs: float | None = None, min_map: float | None = None
) -> list[Record]:
    """Return the records within a budget of MACs and above an accuracy."""
    return [
        r
        for r in records
        if (max_macs is None or r.macs <= max_macs) and (min_map is None or r.accuracy >= min_map)
    ]


def best_within(records: Sequence[Record], tiers: Sequence[int]) -> dict[int, Record | None]:
    """Return the most accurate record within each of several budgets of MACs, largest first."""
    return {
        tier: max(select(records, max_macs=tier), key=lambda r: (r.accuracy, -r.macs), default=None)
        for tier in sorted(tiers, reverse=True)
    }
