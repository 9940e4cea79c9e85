"""Pruning one model down to a target, in a run folder that keeps every finished step.

The folder is an ordinary run: its trials are the steps, so `querynas pareto`, `export` and `report`
take it up.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.trial import TrialState
from pydantic import Field

from compat.device import describe, pick_device
from compat.losses import create_loss
from compat.tasks.split import SplitConfig
from compat.training.config import TrainingConfig
from nas.alignment.fading import fade
from nas.candidates.routes import Candidate
from nas.config.study import (
    CalibrationImages,
    FinishTraining,
    PrunedConfig,
    RealignTraining,
    StudyConfig,
)
from nas.deployment.card import card_path, read_card
from nas.deployment.opening import is_saved, open_query_model, open_saved
from nas.deployment.write import Exported
from nas.errors import StudyError
from nas.recipes.schedules import SCHEDULES, Step, Trainings
from nas.study.export import export
from nas.study.front import Record
from nas.study.held_out import Measured, measured_on_test
from nas.study.run import Run
from nas.study.scoring import keep_weights, measure
from pruning import (
    NEEDS_LOSS,
    Target,
    check_reachable,
    figure,
    load_model,
    parse_target,
    reach,
    save_model,
)
from pruning.cutting import Scope
from pruning.reaching import TOLERANCE
from searchspaces import Architecture, QueryModel, own_resolution
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import MOST_SIDE, Section, Seed, Versioned
from searchspaces.support.settings import bind_settings

logger = logging.getLogger("querynas")

_LOOSE = 0.05  # how closely the rounds before the last one keep to their figures


class PruneConfig(Section):
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
        loss: Towards the gallery vectors, as in a study file.
        resolution: Side of a timm model's input in pixels; its own by default.
        pooling: Of a timm model.
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
    loss: str | dict[str, Any] = "regression"
    resolution: int | None = Field(None, ge=8, le=MOST_SIDE)
    pooling: Literal["avg", "gem"] = "avg"
    pretrained: bool = True
    checkpoint: str | None = None
    align: TrainingConfig | None = TrainingConfig()
    realign: RealignTraining = RealignTraining()
    finish: FinishTraining | None = FinishTraining(epochs=10)
    importance_batches: int = Field(16, ge=1, le=10_000)
    calibration_images: CalibrationImages = 1024
    split: SplitConfig = SplitConfig()
    seed: Seed = 0


class PruneFile(Versioned):
    """``prune.json``: the settings, and what the target came to when the pruning began.

    Attributes:
        config: The settings.
        uncut: The bounded figure of the uncut model; MACs, parameters or seconds.
        bound: The target in the same unit.
    """

    config: PruneConfig
    uncut: float = Field(gt=0)
    bound: float = Field(gt=0)

    @classmethod
    def read(cls, folder: Path) -> "PruneFile":
        """Read the file of a folder.

        Raises:
            StudyError: There is none, or it is broken or of a newer version.
        """
        remedy = "choose another --out, or restore it"
        return read_json(folder / "prune.json", cls, error=StudyError, remedy=remedy)


@dataclass(frozen=True)
class Pruned:
    """What came of a pruning.

    Attributes:
        run: The run folder.
        target: The target in absolute figures.
        steps: The records of the uncut model and of every step, on the validation classes.
        uncut: The uncut model on the test classes.
        files: The pruned model as ``model.safetensors`` and ``model.onnx``, with their cards, whose
            scores are of the test classes.
    """

    run: Run
    target: Target
    steps: tuple[Record, ...]
    uncut: Measured
    files: tuple[Exported, ...]


def prune(config: PruneConfig, out: str | Path) -> Pruned:
    """Align a model to a gallery, cut it down to a target, and re-align it on the way.

    Every finished step is kept. Called again with the same settings after it was stopped in
    whatever way, it goes on behind the last one.

    Args:
        config: What to prune and how.
        out: Run folder; a begun one is continued.

    Raises:
        PruningError: The target is not understood or cannot be reached, or the model cannot be cut;
            before anything is trained.
        CompatError, SearchSpaceError, StudyError: The data, gallery, model or loss do not fit, or
            the folder holds a pruning with other settings.
    """
    pruning = _Pruning(config, Path(out))
    pruning.begin()
    steps = pruning.steps()
    for index, step in enumerate(steps):
        if index not in pruning.done():
            pruning.perform(index, step, len(steps))
        pruning.clear(index)
    records = tuple(record for _, record in sorted(pruning.done().items()))
    uncut = measured_on_test(pruning.run, records[0])
    files = tuple(pruning.export(records[-1]))
    if files[0].collapsed is not None:
        logger.warning(
            "The pruned model has collapsed: %s; give a higher --target, more --rounds or another "
            "--criterion.",
            files[0].collapsed,
        )
    return Pruned(pruning.run, pruning.bound, records, uncut, files)


class _Pruning:
    """A run whose trials are the steps of a schedule."""

    def __init__(self, config: PruneConfig, out: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.target = parse_target(config.target)
        create_loss(config.loss)  # a misspelt loss should not wait for hours of data
        self.config = config
        self.settings = out / "prune.json"
        self._check_settings()
        self.run = Run.create(out, _study(config))

    def begin(self) -> None:
        """Refuse what cannot be done, then write the settings and open the study."""
        if not self.settings.exists():
            start = self._start()
            bound = check_reachable(
                start,
                self.target,
                scope=self.config.scope,
                round_to=self.config.round_to,
            )
            file = PruneFile(
                version=PruneFile.NEWEST,
                config=self.config,
                uncut=figure(start, bound.quantity),
                bound=bound.value,
            )
            text = file.model_dump_json(indent=2)
            self.run.save()
            write_atomically(self.settings, lambda file: file.write_text(text))
        shared = self.run.path / "shared"
        shared.mkdir(exist_ok=True)
        (shared / "begun").touch()  # binds the run to its settings
        logger.info("Computing on %s; results go to %s.", describe(pick_device()), self.run.path)
        optuna.create_study(
            study_name=self.run.study_name,
            storage=self.run.storage,
            directions=["minimize", "maximize"],
            load_if_exists=True,
        ).set_metric_names(list(self.run.config.objectives))

    @cached_property
    def bound(self) -> Target:
        """The target in absolute figures, as it was when the pruning began."""
        return Target(self.target.quantity, PruneFile.read(self.run.path).bound)

    def done(self) -> dict[int, Record]:
        """Return the records of finished steps by their place in the schedule."""
        trials = {t.number: t for t in self.run.study.get_trials(deepcopy=False)}
        return {trials[r.trial].user_attrs["step"]: r for r in self.run.records()}

    def steps(self) -> list[Step]:
        """Return the schedule, the uncut model's own alignment first."""
        config = self.config
        trainings = Trainings(config.rounds, config.realign, config.finish)
        uncut = PruneFile.read(self.run.path).uncut  # a latency would differ today
        align = None if self._is_aligned() else config.align
        return [
            Step("uncut", align),
            *SCHEDULES[config.schedule](uncut, self.bound.value, trainings),
        ]

    def perform(self, index: int, step: Step, count: int) -> None:
        """Cut and train, and keep the model with its scores on the validation classes."""
        aligner, config = self.run.aligner, self.config
        title = f"{step.name} ({index + 1}/{count})"
        cut, checkpoint = self._unfinished(index)
        if cut.exists():  # stopped in the middle of this step's training
            model = load_model(cut).to(aligner.device)
        else:
            model = (self._start() if index == 0 else self._model(index - 1)).to(aligner.device)
            if step.cut_to is not None and figure(model, self.bound.quantity) > step.cut_to:
                last = step.cut_to == self.bound.value
                model = self._reach(model, step.cut_to, TOLERANCE if last else _LOOSE)
                aligner.calibrate(model, config.calibration_images)
            save_model(model, cut)
        if step.training is not None and step.fade_to is not None:
            pruned = self._reach(model, step.fade_to)
            fade(aligner, model, pruned, step.training, title=title)
        elif step.training is not None:
            aligner.align(model, step.training, checkpoint=checkpoint, title=title)
        self._keep(index, step, model)

    def clear(self, index: int) -> None:
        """Remove what only a step in progress needs."""
        for file in self._unfinished(index):
            file.unlink(missing_ok=True)

    def export(self, record: Record) -> Iterator[Exported]:
        """Write the last step's model for deployment, measured on the test classes."""
        yield export(self.run, record, "safetensors", self.run.path / "model.safetensors")
        yield export(self.run, record, "onnx", self.run.path / "model.onnx")

    def _unfinished(self, index: int) -> tuple[Path, Path]:
        """The model of a step before its training, and the state of that training."""
        shared = self.run.path / "shared"
        return shared / f"{index}.safetensors", shared / f"{index}.checkpoint"

    def _reach(self, model: QueryModel, value: float, tolerance: float = TOLERANCE) -> QueryModel:
        config = self.config
        losses = None
        if config.criterion in NEEDS_LOSS:
            losses = self.run.aligner.batch_losses(
                batches=config.importance_batches, size=config.realign.batch
            )
        return reach(
            model,
            Target(self.bound.quantity, value),
            criterion=config.criterion,
            scope=config.scope,
            round_to=config.round_to,
            batch_loss=losses,
            seed=config.seed,
            tolerance=tolerance,
        )

    def _keep(self, index: int, step: Step, model: QueryModel) -> None:
        """Add the model as a trial; it counts once its weights are stored."""
        study = self.run.study
        number = len(study.get_trials(deepcopy=False))
        model = model.to(memory_format=torch.contiguous_format)  # as it is loaded: latency differs
        candidate = Candidate(model, step.name, owns_weights=True)
        params: dict[str, str | int] = {
            "model": self.config.model,
            "step": index,
            "resolution": model.resolution,
        }
        proposal = self.run.proposal("pruned", Architecture("pruned", params))
        record = measure(self.run, number, proposal, candidate)
        costs = {**record.costs, "latency": figure(model, "latency")}
        record = replace(record, costs=costs)
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, user_attrs={**record.attributes(), "step": index}
            )
        )
        keep_weights(self.run, study.get_trials(deepcopy=False)[number], candidate)
        study.tell(number, [float(record.macs), record.cross_test])

    def _model(self, index: int) -> QueryModel:
        return self.run.model(self.done()[index])

    def _start(self) -> QueryModel:
        """The uncut model before any training here."""
        config, dimension = self.config, self.run.data.gallery.dimension
        return open_query_model(
            config.model,
            dimension,
            resolution=_resolution(config),
            pooling=config.pooling,
            pretrained=config.pretrained,
            checkpoint=config.checkpoint,
            seed=config.seed,
        )

    def _is_aligned(self) -> bool:
        """Whether the model's card says that it was aligned to this very gallery."""
        path = Path(self.config.model)
        if not is_saved(self.config.model) or not card_path(path).exists():
            return False
        return read_card(path).gallery.fingerprint == self.run.data.gallery.fingerprint

    def _check_settings(self) -> None:
        if not self.settings.exists():
            return
        folder = self.settings.parent
        begun = PruneFile.read(folder).config
        before, now = (each.model_dump(mode="json") for each in (begun, self.config))
        bind_settings(f"The folder '{folder}'", before, now, error=StudyError)


def _study(config: PruneConfig) -> StudyConfig:
    """The same as a study file, by which other commands read the run."""
    space = PrunedConfig(
        route="pruned",
        backbone=config.model,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        pooling=config.pooling,
        options={"resolutions": [_resolution(config)]},
        calibration_images=config.calibration_images,
        training=config.align or TrainingConfig(),
        realign=config.realign,
    )
    return StudyConfig(
        data=config.data,
        gallery=config.gallery,
        spaces={"pruned": space},
        loss=config.loss,
        split=config.split,
        seed=config.seed,
    )


def _resolution(config: PruneConfig) -> int:
    """Side of the model's images, refused here if it is not what is asked for."""
    if not is_saved(config.model):
        return config.resolution or own_resolution(config.model.removeprefix("timm:"))
    given, checkpoint = config.resolution, config.checkpoint
    return open_saved(config.model, resolution=given, checkpoint=checkpoint).resolution
