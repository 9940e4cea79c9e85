"""Measuring one candidate, and keeping the weights of those that own them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial

from compat.evaluation import Retrieved
from nas.candidates.routes import Candidate
from nas.study import query_scores
from nas.study.front import Record
from nas.study.proposal import asked_costs
from nas.study.run import Run
from pruning import save_model
from searchspaces import Architecture, QueryModel, count_macs, count_parameters


def measure(
    run: Run,
    trial: int,
    route: str,
    architecture: Architecture,
    candidate: Candidate,
    *,
    parent: int | None = None,
    costs: Mapping[str, float] | None = None,
) -> Record:
    """Return the record of a candidate: its cost, and its score on the validation classes.

    The average precisions of single queries are kept in the run folder.

    A search looks at hundreds of slices of a supernet, so they are measured in the cheap way: MACs
    are those in ``costs``, by the space's formula, and the self-test is left out unless it is an
    objective. Of the costs that the study asks for, those in ``costs`` are taken as they are.
    """
    model, costs = candidate.model, costs or {}
    tested = candidate.owns_weights or not {"self_test", "product"}.isdisjoint(
        run.config.objectives
    )
    found, self_test = _tests(run, model) if tested else (_cross_test(run, model), None)
    query_scores.keep(run, trial, found.ap)
    return Record(
        trial=trial,
        route=route,
        fidelity=candidate.fidelity,
        architecture=architecture,
        resolution=model.resolution,
        macs=count_macs(model, model.resolution) if candidate.owns_weights else int(costs["macs"]),
        parameters=count_parameters(model),
        cross_test=found.map,
        interval=found.interval,
        self_test=self_test,
        paragon=run.data.val.paragon.map,
        parent=parent,
        **asked_costs(run, route, architecture, model, costs),
    )


def _cross_test(run: Run, model: QueryModel) -> Retrieved:
    val = run.data.val
    return val.cross_test(val.embed_queries(model))


def _tests(run: Run, model: QueryModel) -> tuple[Retrieved, float]:
    """The cross-test, and the mAP of the self-test."""
    val = run.data.val
    score = val.score(val.embed(model))
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
