"""Candidates trained again with other seeds: how much of a cross-test is luck."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from scipy import stats
from tqdm import tqdm

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.candidates.routes import Route
from nas.errors import StudyError
from nas.study.front import Record, ancestors
from nas.study.run import Run
from searchspaces import QueryModel
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section

_REMEDY = "delete it to repeat trials from the start"
_APART = 100_003  # between seeds: an epoch's order of images is drawn by the seed plus its number


class Recipe(Section):
    """How a candidate is trained again.

    Attributes:
        how: In words.
        trainings: The alignments, one after the other.
    """

    how: str
    trainings: tuple[TrainingConfig, ...]


class Repeat(Section):
    """One training of one candidate with a seed of its own.

    Attributes:
        trial: The candidate.
        seed: Of its weights (where they are not inherited), order of images and calibration.
        recipe: How it was trained.
        val: Cross-test mAP on the validation classes, which picked the best epoch.
        test: Cross-test mAP on the test classes.
    """

    trial: int
    seed: int
    recipe: Recipe
    val: float
    test: float


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds.

    Attributes:
        mean: Of the values.
        half: Half of its 95% t-interval; None for a single value.
    """

    mean: float
    half: float | None

    def __str__(self) -> str:
        return f"{self:.4f}"

    def __format__(self, spec: str) -> str:
        """Format both numbers alike; a single value has no half."""
        return format(self.mean, spec) + ("" if self.half is None else f" ± {self.half:{spec}}")


@dataclass(frozen=True)
class Repeated:
    """What came of a candidate's trainings with other seeds.

    Attributes:
        record: The candidate, as the study scored it.
        how: How it was trained again.
        inherits: Whether it started from a backbone that was not trained again.
        seeds: Number of seeds.
        val: Cross-test on the validation classes.
        test: Cross-test on the test classes.
    """

    record: Record
    how: str
    inherits: bool
    seeds: int
    val: Estimate
    test: Estimate


_FILE = TypeAdapter(list[Repeat])


def repeat(run: Run, records: Sequence[Record], *, seeds: int) -> list[Repeated]:
    """Train candidates again with other seeds, until each was trained with so many.

    A candidate's architecture is built with random weights and aligned alone, by the `training`
    section of its space. One that was cut out of a shared aligned backbone is cut again and
    re-aligned. One that had been finished is finished again. An adapted backbone, for which nothing
    was trained, is passed over.

    Every training is stored in ``repeats.json`` of the run folder once it is done, so a stopped
    command goes on, and ``seeds`` may be raised.

    Raises:
        StudyError: The run is a pruning, or the file of earlier repeats cannot be read.
    """
    if (run.path / "prune.json").exists():
        raise StudyError(
            f"The run '{run.path}' is a pruning, whose steps build on each other; repeat it as a "
            "whole by `querynas prune` with another --seed and --out."
        )
    records = [record for record in records if not record.adapted]  # other seeds change nothing
    recipes = {record.trial: _recipe(run, record) for record in records}
    done = {(each.trial, each.recipe, each.seed) for each in _read(_file(run.path))}
    todo = [
        (record, seed)
        for record in records
        for seed in (run.config.seed + _APART * (i + 1) for i in range(seeds))
        if (record.trial, recipes[record.trial], seed) not in done
    ]
    for name in {record.route for record, _ in todo}:
        if run.routes[name].retraining.inherits:
            run.routes[name].prepare(run.aligner, run.shared)
    for record, seed in tqdm(todo, desc="repeat", unit="training", disable=not todo):
        _perform(run, record, recipes[record.trial], seed)
    return [each for key, each in _grouped(run).items() if key in recipes.items()]


def repeated(run: Run) -> list[Repeated]:
    """Return what was repeated so far, by trial.

    Raises:
        StudyError: The file of repeats cannot be read.
    """
    return list(_grouped(run).values())


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values with its 95% interval by Student's t, as from a normal sample."""
    count = len(values)
    half = stats.t.ppf(0.975, count - 1) * stats.sem(values) if count > 1 else None
    return Estimate(float(np.mean(values)), None if half is None else float(half))


def _grouped(run: Run) -> dict[tuple[int, Recipe], Repeated]:
    """By trial and recipe, in the order of trials."""
    groups: dict[tuple[int, Recipe], list[Repeat]] = {}
    for each in sorted(_read(_file(run.path)), key=lambda each: each.trial):
        groups.setdefault((each.trial, each.recipe), []).append(each)
    records = _records(run, {trial for trial, _ in groups})
    return {
        (trial, recipe): Repeated(
            record=records[trial],
            how=recipe.how,
            inherits=run.routes[records[trial].route].retraining.inherits,
            seeds=len(group),
            val=estimate([each.val for each in group]),
            test=estimate([each.test for each in group]),
        )
        for (trial, recipe), group in groups.items()
    }


def _records(run: Run, trials: Collection[int]) -> dict[int, Record]:
    found = {each.trial: each for each in run.records() if each.trial in trials}
    if unknown := sorted(set(trials) - set(found)):
        raise StudyError(
            f"'{_file(run.path)}' holds a repeat of trial {unknown[0]}, which the run '{run.path}' "
            f"has not scored; {_REMEDY}."
        )
    return found


def _perform(run: Run, record: Record, recipe: Recipe, seed: int) -> None:
    """Train, measure and store; checkpoints go when the result is stored."""
    checkpoints = run.shared / f"repeat-{record.trial}-{seed}"
    route, aligner = run.routes[record.route], replace(run.aligner, seed=seed)
    model = _trained(record, route, aligner, recipe.trainings[1:], checkpoints)
    scores = [
        task.cross_test(task.embed_queries(model)).map for task in (run.data.val, run.data.test)
    ]
    result = Repeat(
        trial=record.trial,
        seed=seed,
        recipe=recipe,
        val=scores[0],
        test=scores[1],
    )
    content = _FILE.dump_json([*_read(_file(run.path)), result], indent=1)
    write_atomically(_file(run.path), lambda file: file.write_bytes(content))
    for checkpoint in run.shared.glob(f"{checkpoints.name}-*.checkpoint"):
        checkpoint.unlink()


def _trained(
    record: Record,
    route: Route,
    aligner: Aligner,
    further: Sequence[TrainingConfig],
    checkpoints: Path,
) -> QueryModel:
    """Train by the route, then as on the rungs that the candidate climbed."""
    title = f"trial {record.trial}, seed {aligner.seed}"

    def checkpoint(number: int) -> Path:
        return checkpoints.with_name(f"{checkpoints.name}-{number}.checkpoint")

    model = route.retrain(record.architecture, aligner, checkpoint=checkpoint(0), title=title)
    for number, training in enumerate(further, start=1):
        aligner.align(
            model,
            training,
            checkpoint=checkpoint(number),
            pretrained=route.pretrained,
            title=title,
        )
    return model


def _recipe(run: Run, record: Record) -> Recipe:
    retraining = run.routes[record.route].retraining
    climbed = len(ancestors(record, {r.trial: r for r in run.records()}))
    further = (TrainingConfig(**r.training.model_dump()) for r in run.config.finish[:climbed])
    return Recipe(
        how=f"{retraining.how}, finished" if climbed else retraining.how,
        trainings=(retraining.training, *further),
    )


def _file(folder: Path) -> Path:
    return folder / "repeats.json"


def _read(file: Path) -> list[Repeat]:
    if not file.exists():
        return []
    return read_json(file, list[Repeat], error=StudyError, remedy=_REMEDY)
