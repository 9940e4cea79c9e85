"""Training a nested model, the folder that keeps it, and what a device takes from it."""

import json
import math
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from compat.device import pick_device
from compat.images import resize
from compat.losses import CompatibilityLoss, create_loss
from compat.targets import Batch
from compat.tasks.retrieval import RetrievalTask
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData, load_study_data
from compat.training import TrainingConfig, align
from nas.alignment.aligner import Aligner
from nas.config.study import CalibrationImages
from nas.deployment.card import Validation
from nas.deployment.formats import format_of
from nas.deployment.opening import is_saved, open_query_model
from nas.deployment.write import Exported, Source, write_model
from nas.errors import StudyError
from nas.reporting.cross_tests import CrossTests, cross_tests, heatmap
from pruning import load_model, save_model
from pruning.nested import (
    Method,
    NestedModel,
    UncertaintyWeights,
    format_capacity,
    order_channels,
)
from pruning.nested.merging import Gradients, Merge
from searchspaces import Architecture, QueryModel
from searchspaces.checkpoint import load_tensors
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import MOST_SIDE, Section, Seed, Versioned
from searchspaces.support.settings import bind_settings
from searchspaces.support.tensors import read_safetensors

_RULE: Mapping[Method, Gradients] = {
    "structured": "integrated",
    "masks": "integrated",
    "switchable": "pcgrad",
}
_FOREIGN = (".onnx", ".pt2", ".pt", ".pth")
_ORDER_BATCHES = 4  # of training images, by which channels are ordered


Capacity = Annotated[float, Field(gt=0, le=1)]


class NestConfig(Section):
    """Everything that defines a nested model.

    Attributes:
        model: A timm name, with or without ``timm:`` before it, or a saved query model,
            ``.safetensors``.
        gallery: Gallery folder.
        data: Spec of the data set.
        method: How subnetworks are formed, see `pruning.nested.NestedModel`.
        gradients: How the capacities' gradients become one; by default as the method's paper.
        capacities: Trained shares, 1 among them.
        per_step: How many capacities a step trains: the largest, the smallest and random ones
            between them (the sandwich rule of Yu and Huang, "Universally slimmable networks and
            improved training techniques", ICCV 2019), in whole percent; of "switchable" only such
            as are in ``capacities``. By default all of ``capacities`` and no others.
        loss: Towards the gallery vectors, as in a study file.
        pairwise: Weight of 1 − cosine to the embeddings of the larger capacities.
        order: Criterion of `pruning.cut` by which channels are put in order.
        size: Side of a timm model's input in pixels.
        pretrained: Whether a timm model starts from its published weights.
        training: Epochs, batch, learning rate.
        calibration_images: Training images for adaptive BN.
        split: Class shares.
        seed: Of weights, scores and order of images.
    """

    model: str
    gallery: str
    data: str
    method: Method = "structured"
    gradients: Gradients | None = None
    capacities: tuple[Capacity, ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0), max_length=100)
    per_step: int | None = Field(None, ge=2, le=100)
    loss: str | dict[str, Any] = "regression"
    pairwise: float = Field(0.0, ge=0, le=1e6)
    order: str = "taylor"
    size: int = Field(64, ge=8, le=MOST_SIDE)
    pretrained: bool = True
    training: TrainingConfig = TrainingConfig()
    calibration_images: CalibrationImages = 1024
    split: SplitConfig = SplitConfig()
    seed: Seed = 0


class NestFile(Versioned):
    """``nest.json``: the settings, and the gallery that the nest was begun with."""

    config: NestConfig
    gallery_fingerprint: str = Field(alias="gallery fingerprint")

    @classmethod
    def read(cls, folder: Path) -> "NestFile":
        """Read the file of a folder.

        Raises:
            StudyError: There is none, or it is broken or of a newer version.
        """
        remedy = "restore it, or train again"
        return read_json(folder / "nest.json", cls, error=StudyError, remedy=remedy)

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        text = self.model_dump_json(indent=2, by_alias=True)
        write_atomically(folder / "nest.json", lambda file: file.write_text(text, "utf-8"))


@dataclass(frozen=True, eq=False)
class Nest:
    """A nested model on disk.

    Attributes:
        path: The folder: ``nest.json`` (settings), ``start.safetensors`` (the dense network, its
            channels in order), ``nested.safetensors`` (all trained weights) and ``cross_tests.*``.
        config: The settings.
    """

    path: Path
    config: NestConfig

    @classmethod
    def create(cls, path: str | Path, config: NestConfig) -> "Nest":
        """Return a new nest, or the one that the folder holds; nothing is written yet.

        Raises:
            StudyError: The folder holds a nest with other settings.
        """
        path = Path(path)
        if (path / "nest.json").exists():
            before, now = (c.model_dump(mode="json") for c in (cls.open(path).config, config))
            bind_settings(f"The nest '{path}'", before, now, error=StudyError)
        return cls(path, config)

    @classmethod
    def open(cls, path: str | Path) -> "Nest":
        """Open a folder that `querynas nest` has made.

        Raises:
            StudyError: It is no such folder, or its settings are broken or of a newer version.
        """
        path = Path(path)
        if not os.path.isfile(path / "nest.json"):
            raise StudyError(
                f"'{path}' is no nest (it has no nest.json); give the --out folder of a "
                "`querynas nest`."
            )
        return cls(path, NestFile.read(path).config)

    @cached_property
    def data(self) -> StudyData:
        """The pictures and gallery vectors.

        Raises:
            CompatError: They cannot be read.
            StudyError: The nest was begun with another gallery.
        """
        data = load_study_data(self.config.data, self.config.gallery, self.config.split)
        if (self.path / "nest.json").exists():
            begun = NestFile.read(self.path).gallery_fingerprint
            if begun != data.gallery.fingerprint:
                raise StudyError(
                    f"The nest '{self.path}' was begun with a gallery of fingerprint {begun}, but "
                    f"'{self.config.gallery}' has {data.gallery.fingerprint}; restore that "
                    "gallery, or choose another --out."
                )
        return data

    @cached_property
    def model(self) -> NestedModel:
        """The trained nested model, in evaluation mode.

        Raises:
            StudyError: It is not trained yet.
        """
        if not self._weights.exists():
            raise StudyError(
                f"The nest '{self.path}' is not trained to its end; give the `querynas nest` that "
                "began it again."
            )
        model = self._untrained()
        remedy = "delete it and give the `querynas nest` that began it again"
        state = read_safetensors(self._weights, error=StudyError, remedy=remedy)[1]
        load_tensors(model, state, f"'{self._weights}'", error=StudyError)
        return model.to(pick_device()).eval()

    def train(self) -> CrossTests:
        """Train, or go on where a killed training stopped; returns tests on the test classes.

        Raises:
            CompatError, StudyError, PruningError: The data, gallery, model or loss do not fit.
        """
        if not self._weights.exists():
            create_loss(self.config.loss)  # a misspelt loss should not wait for hours of data
            start = self._start
            if not start.exists():
                model = self._ordered()
                fingerprint = self.data.gallery.fingerprint
                file = NestFile.model_validate(
                    {
                        "version": NestFile.NEWEST,
                        "config": self.config,
                        "gallery fingerprint": fingerprint,
                    }
                )
                file.write(self.path)
                save_model(model, start)
            nested = self._untrained()
            train_nested(nested, self._aligner, self.config, checkpoint=self._checkpoint)
            state = {k: v.contiguous() for k, v in nested.state_dict().items()}
            write_atomically(self._weights, lambda file: save_file(state, file))
        self._checkpoint.unlink(missing_ok=True)
        return self.cross_tests()

    def cross_tests(self) -> CrossTests:
        """Tests of all trained capacities on the test classes, also written as JSON and HTML."""
        task = self.data.test
        vectors = {
            format_capacity(c): self._vectors(task, self.extract(c)) for c in self.model.capacities
        }
        tests = cross_tests(task, vectors)
        content = json.dumps({"names": tests.names, "maps": tests.maps.tolist()}, indent=1)
        write_atomically(self.path / "cross_tests.json", lambda file: file.write_text(content))
        write_atomically(
            self.path / "cross_tests.html", lambda file: heatmap(tests).write_html(file)
        )
        return tests

    def extract(self, capacity: float) -> QueryModel:
        """Return a subnetwork as an ordinary query model, its BatchNorm fit for its capacity.

        Raises:
            PruningError: The capacity is out of range or cannot be had by this method.
        """
        model = self.model.extract(capacity)
        if capacity not in self.model.capacities:
            self._aligner.calibrate(model, self.config.calibration_images)
        return model

    def write(self, capacity: float, out: str | Path) -> Exported:
        """Write a subnetwork for a device, checked against PyTorch, and its card beside it.

        Args:
            capacity: The share to extract; it need not be a trained one.
            out: The file; .safetensors, .onnx or .pt2, as for `nas.deployment.write.write_model`.

        Raises:
            StudyError: As `nas.deployment.write.write_model`.
            PruningError: As `extract`.
        """
        format_of(Path(out))  # a wrong ending should not wait for the data
        model = self.extract(capacity)
        task = self.data.val
        queries = task.embed_queries(model)
        val = task.cross_test(queries)
        params: dict[str, bool | int | float | str]
        params = {"model": self.config.model, "method": self.config.method, "capacity": capacity}
        source = Source(
            name=f"the nest '{self.path}' at {format_capacity(capacity)}",
            run=self.path,
            trial=None,
            architecture=Architecture("nested", params),
            route="nest",
            fidelity="nested",
            gallery=self.config.gallery,
            data=self.config.data,
            split=self.config.split,
            validation=Validation(cross_test=val.map, interval=val.interval),
        )
        return write_model(model, out, source, self.data)

    @property
    def _start(self) -> Path:
        return self.path / "start.safetensors"

    @property
    def _checkpoint(self) -> Path:
        return self.path / "nested.checkpoint"

    @property
    def _weights(self) -> Path:
        return self.path / "nested.safetensors"

    @cached_property
    def _aligner(self) -> Aligner:
        device = pick_device()
        resolution = load_model(self._start).resolution
        return self._aligner_at(resolution, device)

    def _aligner_at(self, resolution: int, device: torch.device) -> Aligner:
        return Aligner(
            data=self.data.training(resolution).to(device),
            val=self.data.val,
            loss=self.config.loss,
            seed=self.config.seed,
            device=device,
        )

    def _untrained(self) -> NestedModel:
        return NestedModel(
            load_model(self._start),
            self.config.capacities,
            method=self.config.method,
            seed=self.config.seed,
        )

    def _ordered(self) -> QueryModel:
        """The dense network; its channels by falling importance where capacities are prefixes."""
        config = self.config
        model = _given(config, self.data.gallery.dimension)
        # refused here, before any work, if the capacities or the network do not fit
        groups = NestedModel(model, config.capacities, method=config.method).groups
        if not groups:
            return model
        cpu = torch.device("cpu")
        data = self._aligner_at(model.resolution, cpu).data
        loss = create_loss(config.loss, data.targets, seed=config.seed)

        def batch_losses(network: QueryModel) -> Iterator[Tensor]:
            batches = data.epoch(config.training.batch, seed=config.seed, device=cpu)
            for images, batch in islice(batches, _ORDER_BATCHES):
                yield _loss(loss, network(images), batch)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # for the order "random"
            return order_channels(model, groups, criterion=config.order, batch_loss=batch_losses)

    def _vectors(self, task: RetrievalTask, model: QueryModel) -> np.ndarray:
        return task.embed(model)


def train_nested(
    nested: NestedModel,
    aligner: Aligner,
    config: NestConfig,
    *,
    checkpoint: Path | None = None,
    quiet: bool = False,
) -> None:
    """Train a nested model in place; a step shows its batch to several capacities, or to all.

    The best epoch is the one with the highest mean validation cross-test of all capacities. For it,
    and at the end, the BatchNorm statistics of every capacity are estimated again (adaptive BN).
    """
    loss = create_loss(config.loss, aligner.data.targets, seed=config.seed)
    weights = UncertaintyWeights(len(nested.capacities)) if config.method == "switchable" else None
    heads = nn.ModuleList([loss] if weights is None else [loss, weights])
    merge = Merge(nested, loss, config.gradients or _RULE[config.method], config.seed)
    resolution = nested.dense.resolution

    def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
        images = resize(images, resolution)
        larger: list[Tensor] = []
        gradients = []
        for capacity in _shown(config, f"{config.seed} {step}"):
            query = nested(images, capacity)
            value = _loss(loss, query, batch)
            if config.pairwise and larger:
                cosines = torch.stack([(query * other).sum(dim=1).mean() for other in larger])
                value = value + config.pairwise * (1 - cosines).mean()
            larger.append(query.detach())
            if weights is not None:
                value = weights(value, nested.capacities.index(capacity))
            yield value
            gradients.append(merge.collect())  # `align` has sent the loss backward
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            merge.apply(gradients, step)

    def adapted(module: NestedModel, capacity: float) -> QueryModel:
        model = module.extract(capacity)
        aligner.calibrate(model, config.calibration_images)
        return model

    def validate(module: nn.Module) -> float:
        assert isinstance(module, NestedModel)
        scores = [aligner.cross_test(adapted(module, c)) for c in module.capacities]
        return sum(scores) / len(scores)

    align(
        nested,
        losses,
        aligner.data,
        config.training,
        loss=heads,
        seed=config.seed,
        device=aligner.device,
        validate=validate,
        checkpoint=checkpoint,
        title=f"train {len(nested.capacities)} capacities",
        quiet=quiet,
    )
    for capacity in nested.capacities:
        nested.keep_statistics(capacity, adapted(nested, capacity))


def _shown(config: NestConfig, seed: str) -> list[float]:
    """The capacities that a step trains, falling, 100% and the smallest among them."""
    listed = sorted(config.capacities, reverse=True)
    if config.per_step is None:
        return listed
    between = listed[1:-1]
    if config.method != "switchable":
        between = [percent / 100 for percent in range(99, math.floor(100 * listed[-1]), -1)]
    drawn = random.Random(seed).sample(between, min(config.per_step - 2, len(between)))
    return [listed[0], *sorted(drawn, reverse=True), listed[-1]]


def _loss(loss: CompatibilityLoss, query: Tensor, batch: Batch) -> Tensor:
    return loss(query, batch.targets.vectors[batch.rows], batch)


def _given(config: NestConfig, dimension: int) -> QueryModel:
    """The network to nest, as its file or timm has it."""
    if Path(config.model).suffix in _FOREIGN:
        raise StudyError(
            f"'{config.model}' cannot be nested; give the name of a timm model or a saved query "
            "model, .safetensors."
        )
    return open_query_model(
        config.model,
        dimension,
        resolution=None if is_saved(config.model) else config.size,
        pretrained=config.pretrained,
        seed=config.seed,
    )
