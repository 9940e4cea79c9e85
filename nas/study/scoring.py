"""Measuring one candidate, and keeping what a study knows of it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from compat.evaluation import Retrieved
from compat.tasks.retrieval import RANKED, Judge, RetrievalTask
from nas.candidates.proposal import Proposal
from nas.candidates.routes import Candidate
from nas.config.objectives import OBJECTIVES
from nas.study import query_scores
from nas.study.front import Record
from nas.study.run import Run
from pruning import save_model
from searchspaces import QueryModel, count_macs, count_parameters

_COMPARED = 1 << 26  # pairs of query and gallery image: about a second of one core


def measure(
    run: Run, trial: int, proposal: Proposal, candidate: Candidate, *, parent: int | None = None
) -> Record:
    """Return the record of a candidate: its cost, and its score on the validation part.

    The average precisions of single queries are kept in the run folder.

    A search looks at hundreds of slices of a supernet, so they are measured in the cheap way: MACs
    are those of the space's formula, and the self-test is left out unless it is an objective. Of
    the costs that the study asks for, those that the proposal knows are taken as they are. The
    accuracy that the study does not choose by is measured too, unless that takes long.
    """
    model, proposal = candidate.model, proposal.with_network(candidate.model)
    wanted = not {"self_test", "product"}.isdisjoint(run.config.objectives)
    tests = _tests(run, model, self_test=candidate.owns_weights or wanted)
    found, ranked = tests.of[run.data.judge], tests.of.get("ranking")
    query_scores.keep(run.path, trial, found.ap)
    counted = count_macs(model, model.resolution) if candidate.owns_weights else proposal.macs
    return Record(
        trial=trial,
        route=proposal.route.name,
        fidelity=candidate.fidelity,
        architecture=proposal.architecture,
        resolution=model.resolution,
        costs={
            "macs": counted,
            "parameters": count_parameters(model),
            **proposal.costs(run.config.costs),
        },
        cross_test=_map(tests.of.get("labels")),
        interval=found.interval,
        self_test=_map(tests.self_test),
        paragon=run.data.val.paragon.map,
        parent=parent,
        judge=run.data.judge,
        agreement=_map(ranked),
        overlap=None if ranked is None else ranked.precision[RANKED],
    )


@dataclass(frozen=True)
class _Tests:
    """Cross-tests by what judges them, and the self-test by labels where it was asked for."""

    of: Mapping[Judge, Retrieved]
    self_test: Retrieved | None


def _tests(run: Run, model: QueryModel, *, self_test: bool) -> _Tests:
    tasks = {run.data.judge: run.data.val}
    other = run.data.val_otherwise
    if other is not None and ("agreement" in run.config.objectives or _is_cheap(other)):
        tasks[other.judge] = other
    found = None
    if self_test and "labels" in tasks:
        embeddings = run.data.val.embed(model)
        queries = embeddings[run.data.val.retrieval.queries]
        found = tasks["labels"].self_test(embeddings)
    else:
        queries = run.data.val.embed_queries(model)
    return _Tests({judge: task.cross_test(queries) for judge, task in tasks.items()}, found)


def _is_cheap(task: RetrievalTask) -> bool:
    return len(task.retrieval.queries) * len(task.retrieval.gallery) <= _COMPARED


def _map(retrieved: Retrieved | None) -> float | None:
    return None if retrieved is None else retrieved.map


def add_trial(
    run: Run,
    proposal: Proposal,
    candidate: Candidate,
    *,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    constraints: Mapping[str, float],
    parent: int | None = None,
) -> Record:
    """Score a candidate that no sampler proposed, and add it as a trial with weights of its own.

    It counts once its weights are stored.
    """
    number = len(run.study.get_trials(deepcopy=False))
    record = measure(run, number, proposal, candidate, parent=parent)
    run.study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs=record.attributes(),
            constraints=dict(constraints),
        )
    )
    keep_weights(run, run.study.get_trials(deepcopy=False)[number], candidate)
    run.study.tell(number, [record.value(OBJECTIVES[name]) for name in run.config.objectives])
    return record


def keep_weights(run: Run, trial: optuna.Trial | FrozenTrial, candidate: Candidate) -> None:
    """Store a candidate's weights in the run's artifact store, linked to its trial."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_model(candidate.model, file)
        upload_artifact(
            artifact_store=run.artifacts,
            file_path=str(file),
            study_or_trial=trial,
            storage=run.storage,
        )
