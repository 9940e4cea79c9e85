"""The ways to a candidate: slice a supernet, or prune an aligned backbone."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.alignment.fading import fade
from nas.alignment.supernet import train_supernet
from nas.config.objectives import BudgetConfig
from nas.config.study import PrunedConfig, RouteConfig, StandaloneConfig, SupernetConfig
from nas.errors import StudyError
from pruning import PrunedSpace, load_model, save_model
from searchspaces import (
    Architecture,
    ElasticSpace,
    QueryModel,
    SearchSpace,
    StagedSpace,
    Supernet,
    create_space,
    parameters,
    timm_query_model,
)
from searchspaces.checkpoint import load_tensors
from searchspaces.support.files import write_atomically
from searchspaces.support.tensors import read_safetensors

PROJECTION = "projection."
"""What the names of those tensors of a query model begin with that lead into the gallery space."""

_POOL = 500  # random architectures from which the first proposals are chosen


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

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        """Train once what all candidates of this route share; continues after a kill.

        ``start`` is a file of weights, all or all but the projection, to begin with instead of
        the usual ones.
        """

    def untrained(self, architecture: Architecture) -> QueryModel:
        """Return the network of ``architecture`` with random weights; nothing is fetched."""

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        """Return the query model of ``architecture`` with weights, its BatchNorm re-estimated."""

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


class SupernetRoute:
    """Candidates are slices of one supernet, scored with adaptive BN and no training."""

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
        self._config = config
        self.dimension = dimension
        self._supernet: Supernet | None = None

    @property
    def largest_resolution(self) -> int:
        return _largest_resolution(self.space)

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        weights = folder / f"{self.name}.safetensors"
        torch.manual_seed(aligner.seed)
        supernet = self._fresh()
        if not weights.exists():
            checkpoint = folder / f"{self.name}.checkpoint"
            if start is not None:
                _begin_with(supernet, start)
            train_supernet(
                aligner,
                supernet,
                self._config.training,
                random_subnetworks=self._config.random_subnetworks,
                calibration=self._config.calibration_images,
                checkpoint=checkpoint,
            )
            state = {k: v.contiguous() for k, v in supernet.state_dict().items()}
            write_atomically(weights, lambda path: save_file(state, path))
            checkpoint.unlink(missing_ok=True)
        remedy = "delete it to train the shared weights again"
        state = read_safetensors(weights, error=StudyError, remedy=remedy)[1]
        load_tensors(supernet, state, f"'{weights}'", error=StudyError)
        self._supernet = supernet.to(aligner.device).eval()

    def _fresh(self) -> Supernet:
        if isinstance(self.space, StagedSpace):
            transform = self._config.kernel_transform
            return self.space.supernet(self.dimension, kernel_transform=transform)
        return self.space.supernet(self.dimension)

    def untrained(self, architecture: Architecture) -> QueryModel:
        return self.space.build(architecture, self.dimension)

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        assert self._supernet is not None, "prepare() comes first"
        model = aligner.slice(self._supernet, architecture, self._config.calibration_images)
        return Candidate(model, "shared weights", owns_weights=False)

    @property
    def retraining(self) -> Retraining:
        return _alone(self._config.training)

    def retrain(
        self, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
    ) -> QueryModel:
        return _align_alone(self, architecture, aligner, checkpoint=checkpoint, title=title)

    def start(self, rng: random.Random, count: int, budget: BudgetConfig) -> list[Architecture]:
        """Both ends of the space, and random architectures spread evenly over their MACs."""
        pool = [self.space.sample(rng) for _ in range(_POOL)]
        pool += [self.space.smallest(), self.space.largest()]
        costs = {a: self.space.macs(a, self.dimension) for a in pool}
        fitting = sorted((a for a in costs if _within(costs[a], budget)), key=lambda a: costs[a])
        if not fitting:
            return []
        wanted = np.geomspace(costs[fitting[0]], costs[fitting[-1]], count)
        chosen = [min(fitting, key=lambda a: abs(costs[a] - goal)) for goal in wanted]
        return list(dict.fromkeys(chosen))

    def reach(self) -> tuple[int, int]:
        least, most = self.space.smallest(), self.space.largest()
        return self.space.macs(least, self.dimension), self.space.macs(most, self.dimension)


class PrunedRoute:
    """Candidates are cut out of one aligned backbone and briefly re-aligned."""

    def __init__(self, name: str, config: PrunedConfig, dimension: int) -> None:
        self.name = name
        space = create_space(
            "pruned",
            backbone=config.backbone,
            pooling=config.pooling,
            pretrained=config.pretrained,
            checkpoint=config.checkpoint,
            **config.options,
        )
        assert isinstance(space, PrunedSpace)
        self.space = space
        self._config = config
        self.dimension = dimension
        self._aligned: QueryModel | None = None

    @property
    def largest_resolution(self) -> int:
        return max(self.space.resolutions)

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        weights = folder / f"{self.name}.safetensors"
        if not weights.exists():
            checkpoint = folder / f"{self.name}.checkpoint"
            torch.manual_seed(aligner.seed)
            model = timm_query_model(
                self._config.backbone,
                self.dimension,
                resolution=max(self.space.resolutions),
                pooling=self._config.pooling,
                pretrained=self._config.pretrained and start is None,
                checkpoint=self._config.checkpoint if start is None else None,
            )
            if start is not None:
                _begin_with(model, start)
            aligner.align(
                model,
                self._config.training,
                checkpoint=checkpoint,
                title=f"align {self._config.backbone}",
            )
            folder.mkdir(parents=True, exist_ok=True)
            save_model(model, weights)
            checkpoint.unlink(missing_ok=True)
        self._aligned = load_model(weights).to(aligner.device)

    def untrained(self, architecture: Architecture) -> QueryModel:
        space = replace(self.space, pretrained=False, checkpoint=None)
        return space.build(architecture, self.dimension)

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        assert self._aligned is not None, "prepare() comes first"
        start, config = self._aligned, self._config

        def realign(model: QueryModel) -> None:
            aligner.calibrate(model, config.calibration_images)
            aligner.align(model, config.realign, title="re-align", quiet=True)

        schedule = self.space.schedule(architecture)
        if schedule == "growing":
            pruned = self.space.derive(start, architecture)
            start = self.space.adapt(start, architecture)
            fade(aligner, start, pruned, config.realign, title="fade", quiet=True)
        between = realign if schedule == "iterative" else None
        model = self.space.derive(start, architecture, between=between)
        realign(model)
        return Candidate(model, "re-aligned", owns_weights=True)

    @property
    def retraining(self) -> Retraining:
        training = TrainingConfig(**self._config.realign.model_dump())
        return Retraining("cut and re-aligned", training, inherits=True)

    def retrain(
        self, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
    ) -> QueryModel:
        return self.candidate(architecture, aligner).model

    def start(self, rng: random.Random, count: int, budget: BudgetConfig) -> list[Architecture]:
        """Equal ratios in every stage, from uncut to the most that may be cut."""
        drawn = [self.space.sample(rng) for _ in range(count)]
        steps = round(self.space.max_ratio / self.space.step)
        return [
            _with_ratios(architecture, round(steps * i / max(1, count - 1)) * self.space.step)
            for i, architecture in enumerate(drawn)
        ]

    def reach(self) -> tuple[int, int]:
        ends = [
            _with_ratios(_with_resolution(self.space, size), ratio)
            for size, ratio in (
                (min(self.space.resolutions), self.space.max_ratio),
                (max(self.space.resolutions), 0.0),
            )
        ]
        least, most = (self.space.macs(end, self.dimension) for end in ends)
        return least, most


class StandaloneRoute:
    """Candidates of any search space, each aligned alone from a random start: the ground truth."""

    def __init__(self, name: str, config: StandaloneConfig, dimension: int) -> None:
        self.name = name
        self.space = create_space(config.space, **config.options)
        self._config = config
        self.dimension = dimension

    @property
    def largest_resolution(self) -> int:
        return _largest_resolution(self.space)

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        # Nothing is shared; the mark binds the run to its settings, as weights do elsewhere.
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.begun").touch()

    def untrained(self, architecture: Architecture) -> QueryModel:
        return self.space.build(architecture, self.dimension)

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        torch.manual_seed(aligner.seed)
        model = self.untrained(architecture)
        aligner.align(model, self._config.training, title="align alone", quiet=True)
        return Candidate(model, "aligned alone", owns_weights=True)

    @property
    def retraining(self) -> Retraining:
        return _alone(self._config.training)

    def retrain(
        self, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
    ) -> QueryModel:
        return _align_alone(self, architecture, aligner, checkpoint=checkpoint, title=title)

    def start(self, rng: random.Random, count: int, budget: BudgetConfig) -> list[Architecture]:
        drawn = [self.space.sample(rng) for _ in range(count)]
        return [a for a in drawn if _within(self.space.macs(a, self.dimension), budget)]

    def reach(self) -> None:
        """Unknown: a search space need not know its own ends."""


def create_route(name: str, config: RouteConfig, dimension: int) -> Route:
    """Return the route that a study file describes.

    Raises:
        SearchSpaceError, PruningError: The space's options do not fit.
    """
    return _KINDS[config.route](name, config, dimension)


_KINDS: Mapping[str, Callable[[str, Any, int], Route]] = {
    "supernet": SupernetRoute,
    "pruned": PrunedRoute,
    "standalone": StandaloneRoute,
}


def _alone(training: TrainingConfig) -> Retraining:
    """Aligned alone; a supernet's training says more than is asked of one network."""
    plain = training.model_dump(include=set(TrainingConfig.model_fields))
    return Retraining("aligned alone", TrainingConfig(**plain), inherits=False)


def _align_alone(
    route: Route, architecture: Architecture, aligner: Aligner, *, checkpoint: Path, title: str
) -> QueryModel:
    torch.manual_seed(aligner.seed)
    model = route.untrained(architecture)
    aligner.align(model, route.retraining.training, checkpoint=checkpoint, title=title)
    return model


def _begin_with(model: QueryModel, start: Path) -> None:
    """Put weights from a file in a model that is to be trained; without a projection it stays.

    Raises:
        StudyError: The file lacks a tensor of the model, or has it in another shape.
    """
    state = read_safetensors(start, error=StudyError, remedy="leave out warm_start")[1]
    own = model.state_dict()
    for name, tensor in own.items():
        if name in state and state[name].shape == tensor.shape:
            continue
        if name in state or not name.startswith(PROJECTION):
            raise StudyError(
                f"The weights in '{start}' do not fit the network of this version in '{name}'; "
                "leave out warm_start."
            )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def _largest_resolution(space: SearchSpace) -> int:
    return max(
        int(side)
        for name, axis in space.distributions().items()
        if name.rpartition(".")[2] == "resolution"
        for side in parameters.grid(name, axis)
    )


def _with_ratios(architecture: Architecture, ratio: float) -> Architecture:
    params = {k: ratio if k.startswith("ratio_") else v for k, v in architecture.params.items()}
    return Architecture(architecture.space, params)


def _with_resolution(space: PrunedSpace, resolution: int) -> Architecture:
    drawn = space.sample(random.Random(0))
    return Architecture(drawn.space, {**drawn.params, "resolution": resolution})


def _within(macs: int, budget: BudgetConfig) -> bool:
    return (budget.min_macs or 0) <= macs <= (budget.max_macs or macs)
