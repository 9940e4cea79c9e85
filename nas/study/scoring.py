"""Measuring one candidate, and keeping what a study knows of it."""

import tempfile
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial

from compat.evaluation import Retrieved
from compat.tasks.retrieval import RetrievalTask
from nas.candidates.proposal import Proposal
from nas.candidates.routes import Candidate
from nas.study import query_scores
from nas.study.front import Record
from nas.study.run import Run
from pruning import save_model
from searchspaces import QueryModel, count_macs, count_parameters


def measure(
    run: Run, trial: int, proposal: Proposal, candidate: Candidate, *, parent: int | None = None
) -> Record:
    """Return the record of a candidate: its cost, and its score on the validation classes.

    The average precisions of single queries are kept in the run folder.

    A search looks at hundreds of slices of a supernet, so they are measured in the cheap way: MACs
    are those of the space's formula, and the self-test is left out unless it is an objective. Of
    the costs that the study asks for, those that the proposal knows are taken as they are.
    """
    model, proposal = candidate.model, proposal.with_network(candidate.model)
    wanted = not {"self_test", "product"}.isdisjoint(run.config.objectives)
    found, self_test = _tests(model, run.data.val, self_test=candidate.owns_weights or wanted)
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
        cross_test=found.map,
        interval=found.interval,
        self_test=self_test,
        paragon=run.data.val.paragon.map,
        parent=parent,
    )


def _tests(
    model: QueryModel, task: RetrievalTask, *, self_test: bool
) -> tuple[Retrieved, float | None]:
    """The cross-test, and the mAP of the self-test where that is asked for."""
    if not self_test:
        return task.cross_test(task.embed_queries(model)), None
    score = task.score(task.embed(model))
    return score.cross_test, score.self_test.map


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
