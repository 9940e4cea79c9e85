"""Candidates that are trained each for itself, from a random start."""

from pathlib import Path

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.candidates.routes.route import Retraining
from searchspaces import Architecture, QueryModel, SearchSpace
from searchspaces.support.seeding import seeded


class TrainedAlone:
    """What routes have in common whose candidates are built with random weights when repeated.

    Attributes:
        space: The search space.
        dimension: Number of dimensions of the gallery space.
        training: The alignment; that of a supernet says more than is asked of one network.
    """

    space: SearchSpace
    dimension: int
    training: TrainingConfig

    @property
    def pretrained(self) -> bool:
        """Whether the space builds its networks with weights of before."""
        return getattr(self.space, "pretrained", False) or bool(
            getattr(self.space, "checkpoint", None)
        )

    def untrained(self, architecture: Architecture) -> QueryModel:
        return self.space.build(architecture, self.dimension)

    @property
    def retraining(self) -> Retraining:
        plain = self.training.model_dump(include=set(TrainingConfig.model_fields))
        if not plain["epochs"]:  # of a supernet that is not trained
            plain["epochs"] = TrainingConfig().epochs
        return Retraining("aligned alone", TrainingConfig(**plain), inherits=False)

    def retrain(
        self, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
    ) -> QueryModel:
        with seeded(aligner.seed):
            model = self.untrained(architecture)
        aligner.begin(model, pretrained=self.pretrained)
        training = self.retraining.training
        aligner.align(
            model, training, checkpoint=checkpoint, pretrained=self.pretrained, title=title
        )
        return model
