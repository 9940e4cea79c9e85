"""Measuring one candidate, and keeping the weights of those that own them."""

import tempfile
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial

from nas.front import Record
from nas.routes import Candidate
from nas.run import Run
from pruning import save_model
from searchspaces import Architecture, count_macs, count_parameters, measure_latency


def measure(
    run: Run,
    trial: int,
    route: str,
    architecture: Architecture,
    candidate: Candidate,
    *,
    parent: int | None = None,
) -> Record:
    """Return the record of a candidate: its cost, and its score on the validation classes."""
    model = candidate.model
    device = run.aligner.device
    embeddings = run.data.val.embed(model, model.resolution, device)
    timed = "latency" in run.config.objectives
    score = run.data.val.score(embeddings)
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
        latency=measure_latency(model, model.resolution) if timed else None,
        parent=parent,
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
