"""Slices of one supernet."""

import random
from itertools import product
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from nas.alignment.aligner import Aligner
from nas.alignment.supernet import train_supernet
from nas.candidates.routes.alone import TrainedAlone
from nas.candidates.routes.inheriting import begin_with
from nas.candidates.routes.ranges import largest_resolution, within_macs
from nas.candidates.routes.route import Candidate
from nas.config.objectives import BudgetConfig
from nas.config.study import SupernetConfig
from nas.errors import StudyError
from searchspaces import (
    Architecture,
    ElasticSpace,
    InheritingSpace,
    QueryModel,
    StagedSpace,
    Supernet,
    create_space,
    parameters,
)
from searchspaces.checkpoint import load_tensors
from searchspaces.support.files import write_atomically
from searchspaces.support.seeding import seeded
from searchspaces.support.tensors import read_safetensors

_BATCHES = 8  # that show how much channels matter
_POOL = 500  # random architectures from which the first proposals are chosen


class SupernetRoute(TrainedAlone):
    """Candidates are slices of one supernet, scored with adaptive BN and no training."""

    space: ElasticSpace

    def __init__(self, name: str, config: SupernetConfig, dimension: int) -> None:
        space = create_space(config.space, **config.options)
        if not isinstance(space, ElasticSpace):
            raise StudyError(
                f"The space '{name}' is sliced from a supernet, but '{config.space}' has none; "
                "use an elastic space as mbconv, or route: standalone."
            )
        if config.kernel_transform and not isinstance(space, StagedSpace):
            raise StudyError(
                f"The space '{name}' has kernel_transform: true, but supernets of '{config.space}' "
                "have none; leave it out."
            )
        self.name = name
        self.space = space
        self.training = config.training
        self._config = config
        self.dimension = dimension
        self._supernet: Supernet | None = None

    @property
    def largest_resolution(self) -> int:
        return largest_resolution(self.space)

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        weights = folder / f"{self.name}.safetensors"
        with seeded(aligner.seed):
            supernet = self._fresh() if weights.exists() or start else self._beginning()
        if not weights.exists():
            self._train(supernet, aligner, weights, start)
        remedy = "delete it to train the shared weights again"
        state = read_safetensors(weights, error=StudyError, remedy=remedy)[1]
        if "projection.linear.bias" not in state:
            supernet.projection.be_linear()
        load_tensors(supernet, state, f"'{weights}'", error=StudyError)
        self._supernet = supernet.to(aligner.device).eval()

    def _train(
        self, supernet: Supernet, aligner: Aligner, weights: Path, start: Path | None
    ) -> None:
        checkpoint = weights.with_name(f"{self.name}.checkpoint")
        if start is None or not begin_with(supernet, start):
            aligner.begin(supernet, pretrained=self.pretrained or start is not None)
        if start is None:
            self._settle(supernet, aligner)
        if self._config.training.epochs:
            train_supernet(
                aligner,
                supernet,
                self._config.training,
                random_subnetworks=self._config.random_subnetworks,
                calibration=self._config.calibration_images,
                pretrained=self.pretrained,
                checkpoint=checkpoint,
            )
        state = {k: v.contiguous() for k, v in supernet.state_dict().items()}
        write_atomically(weights, lambda path: save_file(state, path))
        checkpoint.unlink(missing_ok=True)

    def retrain(
        self, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
    ) -> QueryModel:
        if not isinstance(self.space, InheritingSpace) or not self.pretrained:
            return super().retrain(architecture, aligner, checkpoint=checkpoint, title=title)
        with seeded(aligner.seed):
            supernet = self.space.inherited(self.dimension)
        aligner.begin(supernet, pretrained=True)
        self._settle(supernet, aligner)
        model = self._sliced(supernet, architecture, aligner)
        training = self.retraining.training
        aligner.align(model, training, checkpoint=checkpoint, pretrained=True, title=title)
        return model

    def _settle(self, supernet: Supernet, aligner: Aligner) -> None:
        if isinstance(self.space, InheritingSpace):
            supernet.settle(aligner.batch_losses(batches=_BATCHES, size=self.training.batch))

    def _beginning(self) -> Supernet:
        """The supernet as its training begins, where there are no weights of an earlier run."""
        if isinstance(self.space, InheritingSpace):
            return self.space.inherited(self.dimension)
        return self._fresh()

    def _fresh(self) -> Supernet:
        if isinstance(self.space, StagedSpace):
            transform = self._config.kernel_transform
            return self.space.supernet(self.dimension, kernel_transform=transform)
        return self.space.supernet(self.dimension)

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        assert self._supernet is not None, "prepare() comes first"
        model = self._sliced(self._supernet, architecture, aligner)
        return Candidate(model, "shared weights", owns_weights=False)

    def _sliced(
        self, supernet: Supernet, architecture: Architecture, aligner: Aligner
    ) -> QueryModel:
        images = self._config.calibration_images
        return aligner.slice(supernet, architecture, images, pretrained=self.pretrained)

    def backbones(self) -> list[Architecture]:
        if not isinstance(self.space, InheritingSpace) or not self.pretrained:
            return []
        most = self.space.largest().params
        return [
            each
            for each in self._unnarrowed()
            if each.params == {**most, "resolution": each.params["resolution"]}
        ]

    def _unnarrowed(self) -> list[Architecture]:
        """A pretrained network at every resolution, up to each of its levels where it has any."""
        if not isinstance(self.space, InheritingSpace) or not self.pretrained:
            return []
        whole = self.space.largest()
        axes = {
            name: parameters.grid(name, axis)
            for name, axis in self.space.distributions().items()
            if name in ("resolution", "levels")
        }
        return [
            Architecture(whole.space, {**whole.params, **dict(zip(axes, values, strict=True))})
            for values in product(*axes.values())
        ]

    def backbone(self, architecture: Architecture) -> QueryModel:
        assert isinstance(self.space, InheritingSpace)
        return self.space.inherited(self.dimension).extract(architecture)

    def start(self, rng: random.Random, count: int, budget: BudgetConfig) -> list[Architecture]:
        """Both ends of the space, and random architectures spread evenly over their MACs.

        Of a pretrained network, those that keep all channels and blocks come in the place of random
        ones: what it learnt is whole in them.
        """
        fitting = self._within(self._unnarrowed(), budget)
        if not fitting:
            drawn = [self.space.sample(rng) for _ in range(_POOL)]
            ends = [self.space.smallest(), self.space.largest()]
            fitting = self._within([*drawn, *ends], budget)
        if len(fitting) <= count:
            return fitting
        costs = [self._macs(a) for a in fitting]
        wanted = np.geomspace(costs[0], costs[-1], count)
        chosen = [min(fitting, key=lambda a: abs(self._macs(a) - goal)) for goal in wanted]
        return list(dict.fromkeys(chosen))

    def _within(
        self, architectures: list[Architecture], budget: BudgetConfig
    ) -> list[Architecture]:
        """Those that keep the budget, without repetitions, by their MACs."""
        kept = dict.fromkeys(a for a in architectures if within_macs(self._macs(a), budget))
        return sorted(kept, key=self._macs)

    def _macs(self, architecture: Architecture) -> int:
        return self.space.macs(architecture, self.dimension)

    def reach(self) -> tuple[int, int]:
        least, most = self.space.smallest(), self.space.largest()
        return self._macs(least), self._macs(most)
