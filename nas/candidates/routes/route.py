"""What a route is: one way from an architecture to a query model with weights."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.config.objectives import BudgetConfig
from searchspaces import Architecture, QueryModel, SearchSpace


@dataclass(frozen=True)
class Retraining:
    """How candidates of a route are trained again with other seeds, each for itself.

    Attributes:
        how: In words.
        training: The alignment.
        inherits: Whether they start from a shared backbone that is not trained again.
    """

    how: str
    training: TrainingConfig
    inherits: bool


@dataclass(frozen=True, eq=False)
class Candidate:
    """A query model that is ready to be scored.

    Attributes:
        model: The query model with weights.
        fidelity: How the weights came about.
        owns_weights: Whether the weights are its own, rather than a slice of shared ones.
    """

    model: QueryModel
    fidelity: str
    owns_weights: bool


class Route(Protocol):
    """One way from an architecture to a query model with weights.

    Attributes:
        name: Of its entry under `spaces` in the study file.
        dimension: Number of dimensions of the gallery space.
    """

    name: str
    dimension: int

    @property
    def space(self) -> SearchSpace:
        """The search space whose architectures this route builds."""

    @property
    def largest_resolution(self) -> int:
        """Side in pixels of the largest input that a candidate may take."""

    @property
    def pretrained(self) -> bool:
        """Whether its networks start from weights that were trained on other images."""

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        """Train once what all candidates of this route share; continues after a kill.

        ``start`` is a file of weights, all or all but the projection, to begin with instead of
        the usual ones.
        """

    def untrained(self, architecture: Architecture) -> QueryModel:
        """Return the network of ``architecture`` with random weights; nothing is fetched."""

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        """Return the query model of ``architecture`` with weights, its BatchNorm re-estimated."""

    def backbones(self) -> list[Architecture]:
        """Return what is a pretrained network as it comes, at every resolution; often nothing."""

    def backbone(self, architecture: Architecture) -> QueryModel:
        """Return one of them with its weights; the projection is random."""

    @property
    def retraining(self) -> Retraining:
        """How `retrain` trains."""

    def retrain(
        self, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
    ) -> QueryModel:
        """Train ``architecture`` for itself by the aligner's seed; continues after a kill."""

    def start(self, rng: random.Random, count: int, budget: BudgetConfig) -> list[Architecture]:
        """Return about ``count`` first proposals that show the whole range of the space."""

    def reach(self) -> tuple[int, int] | None:
        """Return the MACs of the smallest and the largest candidate; None where unknown."""
