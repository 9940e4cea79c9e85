"""Alignment: train a query model into the gallery space."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compat.images import as_images, resize, to_float
from compat.losses import CompatibilityLoss, create_loss
from compat.targets import Batch
from compat.tasks.retrieval import RetrievalTask
from compat.tasks.training_set import TrainingSet
from compat.training.config import TrainingConfig
from compat.training.fit import Fitted, fit
from nas.alignment.adaptation import adapt
from searchspaces import Architecture, QueryModel, Supernet, recalibrate

_BATCH = 256  # calibration images at a time


@dataclass(frozen=True, eq=False)
class Aligner:
    """Everything that alignments of one study share.

    Attributes:
        data: Training pictures and their gallery vectors, the latter on ``device``.
        val: Task whose cross-test mAP picks the best epoch.
        loss: The compatibility loss as the study file names it.
        seed: Seed of the order of images.
        device: Where to train.
    """

    data: TrainingSet
    val: RetrievalTask
    loss: str | dict
    seed: int
    device: torch.device

    def align(
        self,
        model: QueryModel,
        config: TrainingConfig,
        *,
        checkpoint: Path | None = None,
        title: str = "align",
        quiet: bool = False,
    ) -> Fitted:
        """Train a query model in place towards the gallery vectors; keep its best epoch."""
        loss = create_loss(self.loss, self.data.targets, seed=self.seed)

        def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
            yield _loss(loss, model, resize(images, model.resolution), batch)

        return fit(
            model,
            losses,
            self.data,
            config,
            loss=loss,
            seed=self.seed,
            device=self.device,
            validate=self.cross_test,
            checkpoint=checkpoint,
            title=title,
            quiet=quiet,
        )

    def slice(self, supernet: Supernet, architecture: Architecture, calibration: int) -> QueryModel:
        """Cut a subnetwork out of the supernet; adapt its BatchNorm and its projection.

        Both come from ``calibration`` training images.
        """
        model = supernet.extract(architecture).to(self.device)
        batches, targets = self._sample(model.resolution, calibration)
        adapt(model, batches, targets)
        return model

    def calibrate(self, model: QueryModel, images: int) -> None:
        """Adaptive BN: re-estimate BatchNorm statistics on ``images`` training images."""
        batches, _ = self._sample(model.resolution, images)
        recalibrate(model, batches)

    def _sample(self, resolution: int, count: int) -> tuple[list[Tensor], Tensor]:
        """Training images, and their gallery vectors; in batches of about equal size.

        BatchNorm cannot learn from a single image.
        """
        pixels, vectors = self.data.sample(count, seed=self.seed)
        parts = np.array_split(pixels, -(-len(pixels) // _BATCH))
        images = (resize(as_images(part), resolution) for part in parts)
        return [to_float(each, self.device) for each in images], vectors

    def cross_test(self, model: nn.Module) -> float:
        """Validation cross-test mAP of a query model."""
        assert isinstance(model, QueryModel)
        queries = self.val.embed_queries(model)
        return self.val.cross_test(queries).map


def _loss(loss: CompatibilityLoss, model: nn.Module, images: Tensor, batch: Batch) -> Tensor:
    return loss(model(images), batch.targets.vectors[batch.rows], batch)
