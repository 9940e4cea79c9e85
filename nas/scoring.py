"""Measuring one candidate, and keeping the weights of those that own them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial

from nas import query_scores
from nas.front import Record
from nas.objectives import asked_costs
from nas.routes import Candidate
from nas.run import Run
from pruning import save_model
from searchspaces import Architecture, count_macs, count_parameters


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

    Of the costs that the study asks for, those in ``costs`` are taken as they are.
    """
    model = candidate.model
    device = run.aligner.device
    embeddings = run.data.val.embed(model, model.resolution, device)
    score = run.data.val.score(embeddings)
    query_scores.keep(run, trial, score.cross_test.ap)
    return Record(
        trial=trial,
        route=route,
        fidelity=candidate.fidelity,
        architecture=architecture,
        resolution=model.resolution,
        macs=count_macs(model, model.resolution),
        parameters=count_parameters(model),
        cross_test=score.cross_test.map,
        interval=score.cross_test.interval,
        self_test=score.self_test.map,
        paragon=score.paragon.map,
        parent=parent,
        **asked_costs(run, route, architecture, model, costs or {}),
    )


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
