"""What a nested model is made of and how it is trained: the settings, and their file."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from compat.tasks.split import SplitConfig
from compat.training import TrainingConfig
from compat.training.config import of_pretrained
from nas.config.alignment import AlignmentConfig, with_what_was
from nas.config.study import CalibrationImages
from nas.deployment.opening import is_saved
from nas.errors import StudyError
from pruning.nested import Method
from pruning.nested.merging import Gradients
from searchspaces.support.files import write_json
from searchspaces.support.reading import read_json
from searchspaces.support.section import MOST_SIDE, LevelCount, Seed, Versioned

Capacity = Annotated[float, Field(gt=0, le=1)]


class NestConfig(AlignmentConfig):
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
        loss, projection, centred, statistics: As in a study file; with the method "masks"
            statistics are always trained.
        pairwise: Weight of 1 − cosine to the embeddings of the larger capacities.
        order: Criterion of `pruning.cut` by which channels are put in order.
        resolution: Side of a timm model's input in pixels.
        levels: How many of a timm model's first levels its features are pooled from, and after
            which it ends; None for the whole model.
        pretrained: Whether a timm model starts from its published weights.
        checkpoint: File with a timm model's weights instead.
        training: Epochs, batch, learning rate.
        calibration_images: Training images for adaptive BN.
        split: Class shares.
        seed: Of weights, scores and order of images.
    """

    RENAMED: ClassVar = {"size": "resolution"}

    model: str
    gallery: str
    data: str
    method: Method = "structured"
    gradients: Gradients | None = None
    capacities: tuple[Capacity, ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0), max_length=100)
    per_step: int | None = Field(None, ge=2, le=100)
    pairwise: float = Field(0.0, ge=0, le=1e6)
    order: str = "taylor"
    resolution: int = Field(64, ge=8, le=MOST_SIDE)
    levels: LevelCount | None = None
    pretrained: bool = True
    checkpoint: str | None = None
    training: TrainingConfig = Field(TrainingConfig(), validate_default=True)
    calibration_images: CalibrationImages = 1024
    split: SplitConfig = SplitConfig()
    seed: Seed = 0

    @field_validator("training")
    @classmethod
    def _gentle(cls, value: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        starts_trained = info.data.get("pretrained") or info.data.get("checkpoint")
        return of_pretrained(value) if starts_trained else value

    @property
    def keeps_statistics(self) -> bool:
        """Whether every capacity has its channels' BatchNorm statistics as the network came.

        Not so with masks, under which a channel sums up fewer inputs.
        """
        return self.statistics == "kept" and self.starts_trained and self.method != "masks"

    @property
    def starts_trained(self) -> bool:
        """Whether the network has weights that were trained before."""
        return self.pretrained or self.checkpoint is not None or is_saved(self.model)


class NestFile(Versioned):
    """``nest.json``: the settings, and the gallery that the nest was begun with."""

    NEWEST: ClassVar = 4

    config: NestConfig
    gallery_fingerprint: str = Field(alias="gallery fingerprint")

    @field_validator("config", mode="before")
    @classmethod
    def _as_then(cls, value: Any, info: ValidationInfo) -> Any:
        settings = with_what_was(value)
        if info.data.get("version", 0) < 3 and isinstance(settings, dict):
            return {**settings, "statistics": "trained"}  # as they were then, whatever was said
        return settings

    @classmethod
    def of(cls, config: NestConfig, fingerprint: str) -> "NestFile":
        """Return the file of a nest that begins with a gallery of this fingerprint."""
        content = {"version": cls.NEWEST, "config": config, "gallery fingerprint": fingerprint}
        return cls.model_validate(content)

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
        write_json(folder / "nest.json", self)
