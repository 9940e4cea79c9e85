"""Pruning one model down to a target, in a run folder that keeps every finished step.

The folder is an ordinary run: its trials are the steps, so `querynas pareto`, `export` and `report`
take it up.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import optuna

from compat.device import describe, pick_device
from compat.losses import create_loss
from nas.config.alignment import as_begun
from nas.deployment.card import card_path, read_card
from nas.deployment.opening import is_saved
from nas.deployment.write import Exported
from nas.errors import StudyError
from nas.recipes.adapting import AdaptConfig, AdaptedEncoder, adapted_within
from nas.recipes.prune_settings import PruneConfig, PruneFile, study_of, uncut_model
from nas.recipes.prune_steps import PruneSteps
from nas.recipes.schedules import SCHEDULES, Step, Trainings
from nas.study.exports import export
from nas.study.front import Record
from nas.study.held_out import Measured, measured_on_test
from nas.study.run import Run
from nas.study.unfinished import close
from pruning import Target, check_reachable, figure, parse_target
from searchspaces.support.settings import bind_settings

logger = logging.getLogger("querynas")


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
        untrained: The uncut pretrained network at a lower resolution, with a map and without any
            training, where that has no more MACs and is better on the validation part.
    """

    run: Run
    target: Target
    steps: tuple[Record, ...]
    uncut: Measured
    files: tuple[Exported, ...]
    untrained: AdaptedEncoder | None = None


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run, begun = _begin(config, Path(out))
    target = Target(parse_target(config.target).quantity, begun.bound)
    records = PruneSteps(run, begun.config, target, _schedule(run, begun)).perform()
    uncut = measured_on_test(run, records[0])
    files = tuple(
        export(run, records[-1], format, run.path / f"model.{format}")
        for format in ("safetensors", "onnx")
    )
    if files[0].collapsed is not None:
        logger.warning(
            "The pruned model has collapsed: %s; give a higher --target, more --rounds or another "
            "--criterion.",
            files[0].collapsed,
        )
    untrained = better_without_training(run, begun.config, records[-1])
    return Pruned(run, target, records, uncut, files, untrained)


def better_without_training(run: Run, config: PruneConfig, record: Record) -> AdaptedEncoder | None:
    """What `querynas adapt` makes of the uncut network at no more MACs, if that is better."""
    if is_saved(config.model) or not (config.pretrained or config.checkpoint):
        return None
    adapting = AdaptConfig(
        model=config.model,
        gallery=config.gallery,
        data=config.data,
        resolutions=() if config.resolution is None else (config.resolution,),
        levels=() if config.levels is None else (config.levels,),
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        split=config.split,
        seed=config.seed,
    )
    found = adapted_within(record.macs, adapting, run.data, run.further)
    return found if found is not None and found.map.found.map > record.accuracy else None


def _begin(config: PruneConfig, out: Path) -> tuple[Run, PruneFile]:
    """Refuse what cannot be done, then write the settings and open the study."""
    target = parse_target(config.target)
    create_loss(config.alignment_loss)  # a misspelt loss should not wait for hours of data
    if (out / "prune.json").exists():
        begun = PruneFile.read(out)
        before = begun.config.model_dump(mode="json")
        config = as_begun(config, before)
        now = config.model_dump(mode="json")
        bind_settings(f"The folder '{out}'", before, now, error=StudyError)
        run = Run.create(out, study_of(config))
    else:
        config = config.with_loss()
        run = Run.create(out, study_of(config))
        model = uncut_model(config, run.data.gallery.dimension)
        bound = check_reachable(model, target, scope=config.scope, round_to=config.round_to)
        begun = PruneFile(
            version=PruneFile.NEWEST,
            config=config,
            uncut=figure(model, bound.quantity),  # a latency would differ another day
            bound=bound.value,
        )
        run.save()
        begun.write(out)
    run.shared.mkdir(exist_ok=True)
    (run.shared / "begun").touch()  # binds the run to its settings
    logger.info("Computing on %s; results go to %s.", describe(pick_device()), out)
    run.embed_unlabelled()
    optuna.create_study(
        study_name=run.study_name,
        storage=run.storage,
        directions=["minimize", "maximize"],
        load_if_exists=True,
    ).set_metric_names(list(run.config.objectives))
    close(run.study, alone=True)
    return run, begun


def _schedule(run: Run, begun: PruneFile) -> list[Step]:
    """The steps, the uncut model's own alignment first."""
    config = begun.config
    align = None if _is_aligned(config.model, run.data.gallery.fingerprint) else config.align
    trainings = Trainings(config.rounds, config.realign, config.finish)
    return [
        Step("uncut", align),
        *SCHEDULES[config.schedule](begun.uncut, begun.bound, trainings),
    ]


def _is_aligned(model: str, fingerprint: str) -> bool:
    """Whether a model's card says that it was aligned to the gallery of this fingerprint."""
    if not is_saved(model) or not card_path(Path(model)).exists():
        return False
    return read_card(Path(model)).gallery.fingerprint == fingerprint
