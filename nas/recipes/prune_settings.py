"""What is pruned and how: the settings, their file, and the run that they stand for."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from compat.tasks.split import SplitConfig
from compat.training import TrainingConfig
from compat.training.config import of_pretrained
from nas.config.alignment import AlignmentConfig, with_what_was
from nas.config.study import (
    CalibrationImages,
    FinishTraining,
    ImportanceBatches,
    PrunedConfig,
    RealignTraining,
    StudyConfig,
)
from nas.deployment.opening import is_saved, open_query_model, open_saved
from nas.errors import StudyError
from pruning.cutting import Scope
from searchspaces import QueryModel, own_resolution
from searchspaces.support.files import write_json
from searchspaces.support.reading import read_json
from searchspaces.support.section import MOST_SIDE, LevelCount, Seed, Versioned


class PruneConfig(AlignmentConfig):
    """Everything that defines the pruning of one model.

    Attributes:
        model: A timm name, or a saved query model (``.safetensors``).
        gallery: Gallery folder.
        data: Spec of the data set.
        target: "0.25x" (of the MACs), "50M" (MACs), "2Mparams" or "5ms".
        criterion: Which channels go first, see `pruning.cut`.
        scope: Among which channels they are looked for, see `pruning.cut`.
        schedule: "one_shot", "iterative" or "growing", see `nas.recipes.schedules`.
        rounds: Rounds of cutting and re-aligning; other schedules train for as long.
        round_to: Widths are multiples of this.
        loss, projection, centred, statistics: As in a study file.
        resolution: Side of a timm model's input in pixels; its own by default.
        pooling: Of a timm model.
        levels: How many of a timm model's first levels its features are pooled from, and after
            which it ends; None for the whole model.
        pretrained: Whether a timm model starts from its published weights.
        checkpoint: File with a timm model's weights instead.
        align: The alignment of the uncut model; None for a model that needs none.
        realign: The alignment of one round.
        finish: The alignment of the pruned model in the end; None for none.
        importance_batches: Training batches of ``realign.batch`` images by which "taylor" and
            "fisher" judge channels.
        calibration_images: Training images for adaptive BN after a cut.
        split: Class shares.
        seed: Of weights, order of images and the criterion "random".
    """

    model: str
    gallery: str
    data: str
    target: str
    criterion: str = "taylor"
    scope: Scope = "global"
    schedule: Literal["one_shot", "iterative", "growing"] = "iterative"
    rounds: int = Field(5, ge=1, le=1000)
    round_to: int = Field(8, ge=1, le=1024)
    resolution: int | None = Field(None, ge=8, le=MOST_SIDE)
    pooling: Literal["avg", "gem"] = "avg"
    levels: LevelCount | None = None
    pretrained: bool = True
    checkpoint: str | None = None
    align: TrainingConfig | None = Field(TrainingConfig(), validate_default=True)
    realign: RealignTraining = RealignTraining()
    finish: FinishTraining | None = FinishTraining(epochs=10)
    importance_batches: ImportanceBatches = 16
    calibration_images: CalibrationImages = 1024
    split: SplitConfig = SplitConfig()
    seed: Seed = 0

    @field_validator("align")
    @classmethod
    def _gentle(cls, value: TrainingConfig | None, info: ValidationInfo) -> TrainingConfig | None:
        starts_trained = info.data.get("pretrained") or info.data.get("checkpoint")
        return of_pretrained(value) if value and starts_trained else value

    @property
    def starts_trained(self) -> bool:
        """Whether the uncut model has weights that were trained before."""
        return self.pretrained or self.checkpoint is not None or is_saved(self.model)


class PruneFile(Versioned):
    """``prune.json``: the settings, and what the target came to when the pruning began.

    Attributes:
        config: The settings.
        uncut: The bounded figure of the uncut model; MACs, parameters or seconds.
        bound: The target in the same unit.
    """

    NEWEST: ClassVar = 2

    config: PruneConfig
    uncut: float = Field(gt=0)
    bound: float = Field(gt=0)

    @field_validator("config", mode="before")
    @classmethod
    def _as_then(cls, value: Any) -> Any:
        return with_what_was(value)

    @classmethod
    def read(cls, folder: Path) -> "PruneFile":
        """Read the file of a folder.

        Raises:
            StudyError: There is none, or it is broken or of a newer version.
        """
        remedy = "choose another --out, or restore it"
        return read_json(folder / "prune.json", cls, error=StudyError, remedy=remedy)

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        write_json(folder / "prune.json", self)


def study_of(config: PruneConfig) -> StudyConfig:
    """The same as a study file, by which other commands read the run."""
    space = PrunedConfig(
        route="pruned",
        backbone=config.model,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        pooling=config.pooling,
        levels=config.levels,
        options={"resolutions": [_resolution(config)]},
        calibration_images=config.calibration_images,
        training=config.align or TrainingConfig(),
        realign=config.realign,
    )
    return StudyConfig(
        data=config.data,
        gallery=config.gallery,
        spaces={"pruned": space},
        loss=config.alignment_loss,
        projection=config.projection,
        centred=config.centred,
        statistics=config.statistics,
        unlabelled=config.unlabelled,
        split=config.split,
        seed=config.seed,
    )


def _resolution(config: PruneConfig) -> int:
    """Side of the model's images, refused here if it is not what is asked for."""
    if not is_saved(config.model):
        return config.resolution or own_resolution(config.model.removeprefix("timm:"))
    return open_saved(
        config.model,
        resolution=config.resolution,
        levels=config.levels,
        checkpoint=config.checkpoint,
    ).resolution


def uncut_model(config: PruneConfig, dimension: int) -> QueryModel:
    """Return the model that is pruned, before any training here.

    Raises:
        StudyError, PruningError, SearchSpaceError: As `nas.deployment.opening.open_query_model`.
    """
    return open_query_model(
        config.model,
        dimension,
        resolution=_resolution(config),
        pooling=config.pooling,
        levels=config.levels,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        seed=config.seed,
    )
