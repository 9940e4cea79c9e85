"""Alignment: train a query model into the gallery space."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compat.device import pick_device
from compat.images import as_images, resize, to_float
from compat.losses import CompatibilityLoss, create_loss, required_by
from compat.targets import Batch
from compat.tasks.retrieval import RetrievalTask
from compat.tasks.training_set import TrainingSet
from compat.training import Fitted, TrainingConfig, align
from nas.alignment.adaptation import adapt
from nas.alignment.start import fit_projection
from nas.config.alignment import AlignmentConfig
from searchspaces import Architecture, QueryModel, Supernet, recalibrate

_BATCH = 256  # calibration images at a time
_ESTIMATED = 1024  # images that a new network's BatchNorm statistics are estimated from


@dataclass(frozen=True, eq=False)
class Aligner:
    """Everything that alignments of one study share.

    Attributes:
        data: Training pictures and their gallery vectors, the latter on ``device``.
        val: Task whose cross-test mAP picks the best epoch.
        loss: The compatibility loss as the study file names it.
        seed: Seed of the order of images.
        device: Where to train.
        centred: Whether losses see vectors from the mean of the gallery's; None for those that are
            registered so.
        fitted: Whether projections are fitted in closed form before they are trained.
        keeps_statistics: Whether pretrained networks keep their BatchNorm statistics in trainings.
    """

    data: TrainingSet
    val: RetrievalTask
    loss: str | dict[str, Any]
    seed: int
    device: torch.device
    centred: bool | None = None
    fitted: bool = True
    keeps_statistics: bool = True

    @classmethod
    def of(
        cls, config: AlignmentConfig, data: TrainingSet, val: RetrievalTask, *, seed: int
    ) -> "Aligner":
        """Return the alignments that a config asks for, on the device that this machine has.

        Losses that need labels see no mixed views.
        """
        device = pick_device()
        if required_by(config.alignment_loss) & {"labels", "prototypes"}:
            data = data.alone()
        return cls(
            data=data.to(device),
            val=val,
            loss=config.alignment_loss,
            seed=seed,
            device=device,
            centred=config.centred,
            fitted=config.projection == "fitted",
            keeps_statistics=config.statistics == "kept",
        )

    def begin(self, model: QueryModel, *, pretrained: bool) -> None:
        """Give a network that is to be trained its projection, in place.

        It is fitted to the gallery vectors of the training pictures, see `fit_projection`; without
        `fitted` it stays random, and without a bias, as before there was a fit. A network that is
        not ``pretrained`` has its BatchNorm statistics estimated first.
        """
        if self.fitted:
            if not pretrained:
                self.calibrate(model.to(self.device), _ESTIMATED)
            fit_projection(model.to(self.device), self.data, seed=self.seed)
        else:
            model.projection.be_linear()

    def align(
        self,
        model: QueryModel,
        config: TrainingConfig,
        *,
        checkpoint: Path | None = None,
        from_start: bool = True,
        pretrained: bool = False,
        title: str = "align",
        quiet: bool = False,
    ) -> Fitted:
        """Train a query model in place towards the gallery vectors; keep its best epoch.

        That may be its start, unless ``from_start`` is off. A ``pretrained`` network keeps its
        BatchNorm statistics where the study wants it so.
        """
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
            from_start=from_start,
            keep_statistics=pretrained and self.keeps_statistics,
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
        return create_loss(self.loss, self.data.targets, centred=self.centred, seed=self.seed)

    def slice(
        self,
        supernet: Supernet,
        architecture: Architecture,
        calibration: int,
        *,
        pretrained: bool = False,
    ) -> QueryModel:
        """Cut a subnetwork out of the supernet; adapt its BatchNorm and its projection.

        Both come from ``calibration`` training images, see `calibrate`. A slice of a ``pretrained``
        supernet keeps its BatchNorm statistics where the study wants it so; its projection is then
        fitted to images beside the data set too.
        """
        model = supernet.extract(architecture).to(self.device)
        self._adapt(model, calibration, keep=pretrained and self.keeps_statistics)
        return model

    def refit(self, model: QueryModel, images: int, *, whole: bool = False) -> None:
        """Fit a network to its gallery again after a cut: BatchNorm, and the projection.

        Without `fitted` BatchNorm alone. Both come from ``images`` training images, see
        `calibrate`. A pretrained network that is still ``whole`` keeps its statistics where the
        study wants it so.
        """
        if self.fitted:
            self._adapt(model, images, keep=whole and self.keeps_statistics)
        else:
            self.calibrate(model, images)

    def calibrate(self, model: QueryModel, images: int) -> None:
        """Adaptive BN: re-estimate BatchNorm statistics on ``images`` training images.

        These are of the data set, as queries will be; images of other kinds beside it, which
        trainings see too, have statistics of their own.
        """
        batches, _ = self._sample(model.resolution, images, further=False)
        recalibrate(model, batches)

    def _adapt(self, model: QueryModel, images: int, *, keep: bool) -> None:
        sample = self._sample(model.resolution, images, further=keep)
        adapt(model, *sample, keep_statistics=keep)

    def _sample(self, resolution: int, count: int, *, further: bool) -> tuple[list[Tensor], Tensor]:
        """Training images, and their gallery vectors; in batches of about equal size.

        BatchNorm cannot learn from a single image.
        """
        pixels, vectors = self.data.sample(count, seed=self.seed, further=further)
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
