"""Which members of a front are sure to be better than a cheaper one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from optuna.study import StudyDirection

from compat.evaluation import Difference
from compat.evaluation.significance import difference_by_class, units
from nas.study.front import Record
from nas.study.query_scores import kept
from nas.study.run import Run

LEVEL = 0.05
"""How often, at most, a front of equally good models may show a gain."""


@dataclass(frozen=True)
class Gain:
    """The accuracy of a member of the front beside that of a cheaper member.

    Attributes:
        trial: The member.
        over: The cheaper one: of those that are sure to be better than all cheaper ones, the one
            with the highest cross-test.
        difference: mAP of ``trial`` minus mAP of ``over`` on the validation queries.
        tied: Whether the two are not distinguishable.
    """

    trial: int
    over: int
    difference: Difference
    tied: bool


@dataclass(frozen=True)
class Ties:
    """What can be told apart on a front.

    Attributes:
        gains: By trial, for every member that was compared with a cheaper one.
        unknown: Trials whose average precisions were not kept, by an older version; with one of
            them nothing is compared.
        members: Size of the front.
        classes: Number of validation classes, the units of the test.
        of: What the units are: classes, or queries where these have no class.
    """

    gains: Mapping[int, Gain] = field(default_factory=dict)
    unknown: tuple[int, ...] = ()
    members: int = 0
    classes: int = 0
    of: Literal["classes", "queries"] = "classes"

    def tied_with(self, trial: int) -> int | None:
        """Return the cheaper trial that a member is not distinguishable from, if there is one."""
        gain = self.gains.get(trial)
        return gain.over if gain is not None and gain.tied else None

    def words(self, run: Path) -> str:
        """One sentence on what was compared in the run of this folder."""
        if self.members < 2:
            return "There are no two models to compare."
        if self.unknown:
            return (
                "An older version kept no average precisions of single queries for "
                f"{len(self.unknown)} of the {self.members} models, so ties are not known; "
                f"`querynas report {run}` measures them."
            )
        needed = _fewest_classes(self.members)
        if self.classes < needed:
            return (
                f"{self.classes} validation {self.of} are too few to tell {self.members} models "
                f"apart at 95% (it takes {needed}), so all are tied; a study with a larger "
                "`split.val` could."
            )
        return (
            "A model is tied with a cheaper one if the two are not distinguishable at 95%: paired "
            f"test over {self.classes} validation {self.of}, Bonferroni over the front."
        )


def distinguish(run: Run, front: Sequence[Record]) -> Ties:
    """Compare the members of a run's front with cheaper ones, on the validation queries.

    A member is cheaper if every objective that is minimised is as good or better. From the cheapest
    member on, each is compared with the best of the cheaper ones that are sure to be better
    themselves, so those that are not marked rise in steps that are all sure. A front of m members
    makes at most m - 1 comparisons, each at the level of 5% / (m - 1) (Bonferroni). That they were
    selected by the same queries is not corrected for.

    Returns:
        The comparisons; none where `nas.study.query_scores` lacks a member.

    Raises:
        StudyError: Average precisions were kept, but cannot be read.
    """
    if len(front) < 2:
        return Ties(members=len(front))
    precisions = [kept(run, record) for record in front]
    unknown = [r.trial for r, ap in zip(front, precisions, strict=True) if ap is None]
    if unknown:
        return Ties(unknown=tuple(unknown), members=len(front))
    trials = run.study.get_trials(deepcopy=False)
    minimised = [d == StudyDirection.MINIMIZE for d in run.study.directions]
    classes = run.data.images.labels[run.data.splits.val.queries]
    return compare_members(
        {r.trial: ap for r, ap in zip(front, precisions, strict=True) if ap is not None},
        {
            r.trial: [v for v, cost in zip(trials[r.trial].values, minimised, strict=True) if cost]
            for r in front
        },
        classes,
    )


def compare_members(
    precisions: Mapping[int, np.ndarray],
    costs: Mapping[int, Sequence[float]],
    classes: np.ndarray,
) -> Ties:
    """Do the comparisons of `distinguish`, for two members or more.

    Args:
        precisions: By trial, the average precision of every query (Q,), nan without positives.
        costs: By trial, what is minimised.
        classes: (Q,) class of every query, -1 for none.
    """
    members = sorted(precisions, key=lambda trial: tuple(costs[trial]))
    level = LEVEL / (len(members) - 1)
    sure: list[int] = []
    gains: dict[int, Gain] = {}
    for trial in members:
        cheaper = [
            other
            for other in sure
            if all(a <= b for a, b in zip(costs[other], costs[trial], strict=True))
        ]
        if not cheaper:
            sure.append(trial)
            continue
        best = max(cheaper, key=lambda other: float(np.nanmean(precisions[other])))
        difference = difference_by_class(precisions[trial], precisions[best], classes)
        gains[trial] = Gain(trial, best, difference, tied=difference.p_value >= level)
        if not gains[trial].tied and difference.mean > 0:
            sure.append(trial)
    counted = ~np.isnan(precisions[members[0]])
    return Ties(
        gains,
        members=len(members),
        classes=len(np.unique(units(classes)[counted])),
        of="classes" if (classes >= 0).any() else "queries",
    )


def _fewest_classes(members: int) -> int:
    """Classes from which on the smallest p-value, 2 / 2^classes, is below the level."""
    return math.floor(math.log2(2 * (members - 1) / LEVEL)) + 1
