"""Alignment: train a query model into the gallery space."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compat.images import as_images, resize, to_float
from compat.losses import CompatibilityLoss, create_loss
from compat.targets import Batch
from compat.tasks.retrieval import RetrievalTask
from compat.tasks.training_set import TrainingSet
from compat.training import Fitted, TrainingConfig, align
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
    loss: str | dict[str, Any]
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
        loss = self.new_loss()

        def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
            yield _loss_of(model, images, batch, loss)

        return align(
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

    def batch_losses(self, *, batches: int, size: int) -> Callable[[QueryModel], Iterator[Tensor]]:
        """Return the loss of a model on some training batches, by which channels are judged.

        Only training pictures and their stored gallery vectors are looked at.

        Args:
            batches: Number of batches; the same ones for every model.
            size: Images of a batch.
        """
        loss = self.new_loss().to(self.device).eval()

        def losses(model: QueryModel) -> Iterator[Tensor]:
            drawn = self.data.epoch(size, seed=self.seed, device=self.device)
            for images, batch in islice(drawn, batches):
                yield _loss_of(model, images, batch, loss)

        return losses

    def new_loss(self) -> CompatibilityLoss:
        """Return the compatibility loss as a training begins with it."""
        return create_loss(self.loss, self.data.targets, seed=self.seed)

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


def _loss_of(model: QueryModel, images: Tensor, batch: Batch, loss: CompatibilityLoss) -> Tensor:
    return loss(model(resize(images, model.resolution)), batch.vectors, batch)
