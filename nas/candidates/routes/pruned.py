"""Cuts of one aligned backbone."""

import random
from pathlib import Path
from typing import Any

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.alignment.fading import fade
from nas.candidates.routes.inheriting import begin_with
from nas.candidates.routes.route import Candidate, Retraining
from nas.config.objectives import BudgetConfig
from nas.config.study import PrunedConfig
from pruning import NEEDS_LOSS, BatchLoss, PrunedSpace, load_model, replayed, save_model
from searchspaces import Architecture, QueryModel, create_space, timm_query_model
from searchspaces.support.seeding import seeded

_CRITERIA = ("taylor",)
"""What channels are judged by where the study file does not say; the space itself has no loss."""


class PrunedRoute:
    """Candidates are cut out of one aligned backbone and briefly re-aligned."""

    def __init__(self, name: str, config: PrunedConfig, dimension: int) -> None:
        self.name = name
        space = create_space(
            "pruned",
            backbone=config.backbone,
            pooling=config.pooling,
            levels=config.levels,
            pretrained=config.pretrained,
            checkpoint=config.checkpoint,
            **{"criteria": _CRITERIA, **config.options},
        )
        assert isinstance(space, PrunedSpace)
        self.space = space
        self._config = config
        self.dimension = dimension
        self._aligned: QueryModel | None = None
        self._judged: dict[tuple[Any, Any], BatchLoss] = {}

    @property
    def largest_resolution(self) -> int:
        return max(self.space.resolutions)

    @property
    def pretrained(self) -> bool:
        return self._config.pretrained or self._config.checkpoint is not None

    def prepare(self, aligner: Aligner, folder: Path, *, start: Path | None = None) -> None:
        weights = folder / f"{self.name}.safetensors"
        if not weights.exists():
            checkpoint = folder / f"{self.name}.checkpoint"
            with seeded(aligner.seed):
                model = self._uncut(start)
            if start is None or not begin_with(model, start):
                aligner.begin(model, pretrained=self.pretrained or start is not None)
            aligner.align(
                model,
                self._config.training,
                checkpoint=checkpoint,
                pretrained=self.pretrained,
                title=f"align {self._config.backbone}",
            )
            folder.mkdir(parents=True, exist_ok=True)
            save_model(model, weights)
            checkpoint.unlink(missing_ok=True)
        self._aligned = load_model(weights).to(aligner.device)

    def _uncut(self, start: Path | None) -> QueryModel:
        """The backbone as published; with random weights where an earlier run gives others."""
        return timm_query_model(
            self._config.backbone,
            self.dimension,
            resolution=max(self.space.resolutions),
            pooling=self._config.pooling,
            levels=self.space.level_names,
            pretrained=self._config.pretrained and start is None,
            checkpoint=self._config.checkpoint if start is None else None,
        )

    def untrained(self, architecture: Architecture) -> QueryModel:
        return self.space.shaped(architecture, self.dimension)

    def candidate(self, architecture: Architecture, aligner: Aligner) -> Candidate:
        assert self._aligned is not None, "prepare() comes first"
        start, config = self._aligned, self._config
        cut = any(value for name, value in architecture.params.items() if name.startswith("ratio_"))

        def realign(model: QueryModel) -> None:
            aligner.refit(model, config.calibration_images, whole=self.pretrained and not cut)
            aligner.align(
                model, config.realign, pretrained=self.pretrained, title="re-align", quiet=True
            )

        losses = self._losses(architecture, aligner)
        schedule = self.space.schedule(architecture)
        if schedule == "growing":
            pruned = self.space.derive(start, architecture, batch_loss=losses)
            start = self.space.adapt(start, architecture)
            fade(aligner, start, pruned, config.realign, title="fade", quiet=True)
        between = realign if schedule == "iterative" else None
        model = self.space.derive(start, architecture, between=between, batch_loss=losses)
        realign(model)
        return Candidate(model, "re-aligned", owns_weights=True)

    def _losses(self, architecture: Architecture, aligner: Aligner) -> BatchLoss | None:
        """The losses that channels are judged by, if any.

        Those of the uncut network are differentiated once for all cuts at a resolution.
        """
        params, config = architecture.params, self._config
        if params["criterion"] not in NEEDS_LOSS:
            return None
        losses = aligner.batch_losses(batches=config.importance_batches, size=config.realign.batch)
        if self.space.schedule(architecture) == "iterative":
            return losses
        key = params["resolution"], params["criterion"]
        return self._judged.setdefault(key, replayed(losses, str(params["criterion"])))

    def backbones(self) -> list[Architecture]:
        sides = self.space.resolutions if self.pretrained else ()
        return [_with_ratios(_with_resolution(self.space, side), 0.0) for side in sides]

    def backbone(self, architecture: Architecture) -> QueryModel:
        return self.space.build(architecture, self.dimension)

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


def _with_ratios(architecture: Architecture, ratio: float) -> Architecture:
    params = {k: ratio if k.startswith("ratio_") else v for k, v in architecture.params.items()}
    return Architecture(architecture.space, params)


def _with_resolution(space: PrunedSpace, resolution: int) -> Architecture:
    drawn = space.sample(random.Random(0))
    return Architecture(drawn.space, {**drawn.params, "resolution": resolution})
