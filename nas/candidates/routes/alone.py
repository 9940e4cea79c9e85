"""Candidates that are trained each for itself, from a random start."""

from pathlib import Path

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.candidates.routes.route import Retraining, Route
from searchspaces import Architecture, QueryModel
from searchspaces.support.seeding import seeded


def aligned_alone(training: TrainingConfig) -> Retraining:
    """Say that candidates are aligned alone by a training, which may be of a supernet too."""
    plain = training.model_dump(include=set(TrainingConfig.model_fields))
    return Retraining("aligned alone", TrainingConfig(**plain), inherits=False)


def align_alone(
    route: Route, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
) -> QueryModel:
    """Align a network of fresh weights by the aligner's seed; continues after a kill."""
    with seeded(aligner.seed):
        model = route.untrained(architecture)
        aligner.align(model, route.retraining.training, checkpoint=checkpoint, title=title)
    return model
