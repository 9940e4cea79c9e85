"""A nested model on disk: trained, and what a device takes from it."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors.torch import save_file

from compat.device import pick_device
from compat.losses import create_loss
from compat.tasks.further import embed_unlabelled, open_unlabelled
from compat.tasks.study_data import StudyData, load_study_data
from nas.alignment.aligner import Aligner
from nas.alignment.mapping import gains_by_mixed
from nas.config.alignment import as_begun
from nas.deployment.card import Validation
from nas.deployment.formats import format_of
from nas.deployment.opening import is_saved, open_query_model
from nas.deployment.write import Exported, Source, write_model
from nas.errors import StudyError
from nas.recipes.nest_settings import NestConfig, NestFile
from nas.recipes.nest_training import train_nested
from nas.reporting.cross_matrix import CrossTests, cross_tests, heatmap
from pruning import load_model, save_model
from pruning.nested import NestedModel, format_capacity, order_channels
from searchspaces import Architecture, QueryModel
from searchspaces.checkpoint import load_tensors
from searchspaces.support.files import write_atomically
from searchspaces.support.seeding import seeded
from searchspaces.support.settings import bind_settings
from searchspaces.support.tensors import read_safetensors

_FOREIGN = (".onnx", ".pt2", ".pt", ".pth")
_ORDER_BATCHES = 4  # of training images, by which channels are ordered


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
            before = cls.open(path).config.model_dump(mode="json")
            config = as_begun(config, before)
            now = config.model_dump(mode="json")
            bind_settings(f"The nest '{path}'", before, now, error=StudyError)
            return cls(path, config)
        return cls(path, config.with_loss())

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
            # a misspelt loss should not wait for hours of data
            create_loss(self.config.alignment_loss)
            embed_unlabelled(self.config.unlabelled, self.data.gallery, self._further)
            start = self._start
            if not start.exists():
                model = self._ordered()
                NestFile.of(self.config, self.data.gallery.fingerprint).write(self.path)
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
        vectors = {format_capacity(c): task.embed(self.extract(c)) for c in self.model.capacities}
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
        if capacity not in self.model.capacities and not self.config.keeps_statistics:
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
        val = task.cross_test(task.embed_queries(model))
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
    def _further(self) -> Path:
        """Folder of the galleries of `unlabelled` images."""
        return self.path / "unlabelled"

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
        return self._aligner_of(load_model(self._start))

    def _aligner_of(self, model: QueryModel) -> Aligner:
        further = open_unlabelled(self.config.unlabelled, self.data, self._further)
        training = self.data.training(model.resolution, further)
        seed = self.config.seed
        if training.mixed and not gains_by_mixed(model, self.data, further, seed=seed):
            training = training.alone()
        return Aligner.of(self.config, training, self.data.val, seed=self.config.seed)

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
        aligner = self._aligner_of(model)
        if not is_saved(config.model):
            aligner.begin(model, pretrained=config.starts_trained)
        if not groups:
            return model
        losses = aligner.batch_losses(batches=_ORDER_BATCHES, size=config.training.batch)
        with seeded(config.seed):  # for the order "random"
            return order_channels(
                model.to(aligner.device), groups, criterion=config.order, batch_loss=losses
            )


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
        resolution=None if is_saved(config.model) else config.resolution,
        levels=config.levels,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        seed=config.seed,
    )
