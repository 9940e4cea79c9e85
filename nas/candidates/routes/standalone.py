"""Networks of any search space, each trained by itself."""

import random
from pathlib import Path

from nas.alignment.aligner import Aligner
from nas.candidates.routes.alone import TrainedAlone
from nas.candidates.routes.ranges import largest_resolution, within_macs
from nas.candidates.routes.route import Candidate
from nas.config.objectives import BudgetConfig
from nas.config.study import StandaloneConfig
from searchspaces import (
    Architecture,
    InheritingSpace,
    QueryModel,
    TimmSpace,
    create_space,
)
from searchspaces.support.seeding import seeded


class StandaloneRoute(TrainedAlone):
    """Candidates of any search space, each aligned alone: the ground truth.

    They begin with random weights, or with published ones where the space has them.
    """

    def __init__(self, name: str, config: StandaloneConfig, dimension: int) -> None:
        self.name = name
        self.space = create_space(config.space, **config.options)
        self.training = config.training
        self.dimension = dimension

    @property
    def largest_resolution(self) -> int:
        return largest_resolution(self.space)

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        # Nothing is shared; the mark binds the run to its settings, as weights do elsewhere.
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.begun").touch()

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        with seeded(aligner.seed):
            model = self.untrained(architecture)
        aligner.begin(model, pretrained=self.pretrained)
        aligner.align(
            model, self.training, pretrained=self.pretrained, title="align alone", quiet=True
        )
        return Candidate(model, "aligned alone", owns_weights=True)

    def untrained(self, architecture: Architecture) -> QueryModel:
        if isinstance(self.space, InheritingSpace) and self.pretrained:
            return self.space.inherited(self.dimension).extract(architecture)
        return super().untrained(architecture)

    def backbones(self) -> list[Architecture]:
        if self.pretrained and isinstance(self.space, TimmSpace):
            return self.space.plain()
        return []

    def backbone(self, architecture: Architecture) -> QueryModel:
        return self.space.build(architecture, self.dimension)

    def start(self, rng: random.Random, count: int, budget: BudgetConfig) -> list[Architecture]:
        drawn = [self.space.sample(rng) for _ in range(count)]
        return [a for a in drawn if within_macs(self.space.macs(a, self.dimension), budget)]

    def reach(self) -> None:
        """Unknown: a search space need not know its own ends."""
