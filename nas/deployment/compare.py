"""Two exported query models side by side, in one gallery, on the same queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compat.evaluation import Difference, Score, paired_difference
from compat.evaluation.significance import difference_by_class
from compat.metrics import Agreement, Criteria, agreement, criteria
from nas.deployment.evaluate import Evaluation, evaluate_file
from nas.errors import StudyError

_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two query models achieved on the same queries.

    Attributes:
        first: The three tests of the first model.
        second: The same of the second.
        agreements: How far each agrees with the gallery model, on the query images.
        differences: By protocol, cross-test of the first minus cross-test of the second.
    """

    first: Evaluation
    second: Evaluation
    agreements: tuple[Agreement, Agreement]
    differences: Mapping[str, Difference]

    @property
    def models(self) -> tuple[tuple[Evaluation, Agreement], tuple[Evaluation, Agreement]]:
        """Each model's tests with its agreement."""
        return (self.first, self.agreements[0]), (self.second, self.agreements[1])

    def verdict(self, protocol: str) -> str:
        """One sentence on the cross-tests by a protocol, at the 95% level of the p-value."""
        difference = self.differences[protocol]
        first, second = self.first.path, self.second.path
        if difference.p_value >= _LEVEL:
            return f"{first} is not distinguishable from {second} at 95%."
        better = "better" if difference.mean > 0 else "worse"
        return f"{first} is {better} than {second} at 95%."


def compare_files(
    first: str | Path,
    second: str | Path,
    gallery: str | Path,
    data: str,
    *,
    ignore_fingerprint: bool = False,
) -> Comparison:
    """Measure two exported query models on the test part of a data set, as `evaluate_file` does.

    Args:
        first: An exported file, its card beside it.
        second: Another.
        gallery: Gallery folder.
        data: Spec of the data set, whose images have vectors in the gallery.
        ignore_fingerprint: Allow another gallery than the models were aligned to.

    Raises:
        StudyError: The models' studies divided the classes differently, or one of the models does
            not belong to the gallery.
        CompatError: The gallery or the data cannot be read.
    """
    one, two = (
        evaluate_file(path, gallery, data, ignore_fingerprint=ignore_fingerprint)
        for path in (first, second)
    )
    splits = one.card.data.split, two.card.data.split
    if splits[0] != splits[1]:
        raise StudyError(
            f"'{first}' was tested with the split ({splits[0]}) and '{second}' with ({splits[1]}), "
            "so their test queries differ; compare models of studies with the same `split`."
        )
    return Comparison(
        one,
        two,
        (_agreement(one), _agreement(two)),
        {name: _difference(one, two, name) for name in one.scores},
    )


def _difference(one: Evaluation, two: Evaluation, protocol: str) -> Difference:
    """By class where queries have one, else by query."""
    first, second = (each.scores[protocol].cross_test.ap for each in (one, two))
    if protocol != "labels":
        return paired_difference(first, second)
    task = one.task
    return difference_by_class(first, second, task.images.labels[task.retrieval.queries])


def criteria_of(score: Score) -> Criteria:
    """Return the criteria that the three tests of a query model decide."""
    return criteria(
        self_test=score.self_test.map, cross_test=score.cross_test.map, paragon=score.paragon.map
    )


def _agreement(done: Evaluation) -> Agreement:
    task, place = done.task, done.task.retrieval
    return agreement(
        done.embeddings[place.queries],
        task.vectors[place.queries],
        task.vectors[place.gallery],
        ignored=task.truth,
        metric=task.metric,
    )
