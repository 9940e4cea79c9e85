"""`querynas prune`: schedules, a whole small pruning, and going on after it was stopped."""

import random
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from compat.training.config import TrainingConfig
from nas import PruneConfig, prune
from nas.alignment.aligner import Aligner
from nas.candidates.routes import PrunedRoute
from nas.cli import main
from nas.config.study import FinishTraining, PrunedConfig, RealignTraining, StudyConfig
from nas.deployment.evaluate import evaluate_file
from nas.errors import StudyError
from nas.recipes.prune_run import Pruned, better_without_training
from nas.recipes.schedules import Trainings, growing, iterative, one_shot
from nas.study.exports import export
from nas.study.front import Record
from nas.study.run import Run
from pruning import PruningError, Target, cut, load_model, save_model
from searchspaces import (
    Architecture,
    QueryModel,
    SearchSpaceError,
    count_macs,
    timm_query_model,
)

Begun = Callable[[str], BaseProcess]
Cli = Callable[..., tuple[int, str, str]]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]

DATA = "facades:classes=16,images=8,size=32,seed=0"  # of the gallery in conftest.py
SHORT = {"epochs": 1, "batch": 32, "validate_every": 1}


def config(gallery: Path, **changes: Any) -> PruneConfig:
    fields: dict[str, Any] = {
        "model": "test_resnet",
        "gallery": str(gallery),
        "data": DATA,
        "target": "0.4x",
        "scope": "local",
        "round_to": 1,  # which reaches the target in the fewest cuts
        "rounds": 2,
        "resolution": 32,
        "pretrained": False,
        "align": TrainingConfig(**SHORT),
        "realign": RealignTraining(**SHORT),
        "finish": FinishTraining(**SHORT),
        "importance_batches": 2,
        "calibration_images": 32,
    }
    return PruneConfig(**(fields | changes))


@pytest.fixture(scope="module")
def pruned(gallery: Path, made_once: MadeOnce) -> Pruned:
    """A finished pruning in two rounds; read it, do not change it."""
    return prune(config(gallery), made_once("pruned", lambda path: prune(config(gallery), path)))


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only steps are looked at: the pruned model is not exported, which takes most of the time."""

    def unwritten(run: Run, record: Record, format: Any, path: Path) -> Any:
        return Mock(path=path, collapsed=None)

    monkeypatch.setattr("nas.recipes.prune_run.export", unwritten)


def trainings(finish: bool = True) -> Trainings:
    last = FinishTraining(epochs=7) if finish else None
    return Trainings(4, RealignTraining(epochs=3), last)


def test_iterative_takes_the_same_share_in_every_round() -> None:
    *rounds, last = iterative(160.0, 10.0, trainings())
    assert [step.cut_to for step in rounds] == pytest.approx([80, 40, 20, 10])
    assert rounds[-1].cut_to == 10.0
    assert [step.training.epochs for step in rounds if step.training] == [3] * 4
    assert (last.cut_to, last.training) == (None, FinishTraining(epochs=7))


def test_all_schedules_train_for_as_long() -> None:
    for schedule in (one_shot, iterative, growing):
        steps = schedule(160.0, 10.0, trainings(finish=False))
        assert sum(step.training.epochs for step in steps if step.training) == 12
        assert steps[-1].cut_to == 10.0
    assert growing(160.0, 10.0, trainings())[0].fade_to == 10.0


@pytest.mark.parametrize(("rounds", "halves"), [(5, [2, 3]), (2, [1, 1]), (1, [1, 1])])
def test_growing_halves_any_number_of_epochs(rounds: int, halves: list[int]) -> None:
    steps = growing(160.0, 10.0, Trainings(rounds, RealignTraining(epochs=1), None))
    assert [step.training.epochs for step in steps if step.training] == halves


def test_every_step_is_kept_and_the_target_is_met(pruned: Pruned) -> None:
    names = [record.fidelity for record in pruned.steps]
    assert names == ["uncut", "round 1 of 2", "round 2 of 2", "finished"]
    macs = [record.macs for record in pruned.steps]
    assert pruned.target.value == pytest.approx(0.4 * macs[0])
    assert 0.98 * pruned.target.value <= macs[2] == macs[3] <= pruned.target.value
    assert 0.9 <= macs[1] / (macs[0] * 0.4**0.5) <= 1
    assert all(record.costs["latency"] > 0 for record in pruned.steps)
    for record in pruned.steps:
        model = pruned.run.model(record)
        assert count_macs(model, 32) == record.macs


def test_the_files_are_what_was_scored(pruned: Pruned, gallery: Path) -> None:
    for file in pruned.files:
        found = evaluate_file(file.path, gallery, DATA).scores["labels"].cross_test.map
        assert found == pytest.approx(file.card.scores.cross_test.map, abs=1e-6)
        assert file.card.macs == pruned.steps[-1].macs
    assert [file.path.name for file in pruned.files] == ["model.safetensors", "model.onnx"]
    assert pruned.files[1].card.latency.onnxruntime


def test_a_pruning_is_a_run(pruned: Pruned, tmp_path: Path) -> None:
    run = Run.open(pruned.run.path)
    assert len(run.front()) >= 1
    done = export(run, run.record(1), "safetensors", tmp_path / "first.safetensors")
    assert done.card.fidelity == "round 1 of 2"


class Stopped(Exception):
    pass


@pytest.mark.usefixtures("no_files")
def test_a_pruning_that_is_stopped_before_every_training_goes_on(
    pruned: Pruned, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    align = Aligner.align

    def one(self: Aligner, model: Any, *arguments: Any, **options: Any) -> Any:
        if next(allowed, None) is None:
            raise Stopped
        return align(self, model, *arguments, **options)

    kept: list[Record] = []
    for place in range(4):
        allowed = iter([place] * min(place, 1))  # what was trained before is not trained again
        monkeypatch.setattr(Aligner, "align", one)
        with pytest.raises(Stopped):
            prune(config(gallery), tmp_path)
        records = sorted(Run.open(tmp_path).records(), key=lambda record: record.trial)
        assert len(records) == place
        assert records[: len(kept)] == kept
        kept = records

    monkeypatch.setattr(Aligner, "align", align)
    steps = prune(config(gallery), tmp_path).steps
    assert list(steps[:3]) == kept
    assert [r.macs for r in steps] == [r.macs for r in pruned.steps]
    scores = [r.cross_test for r in pruned.steps]
    assert [r.cross_test for r in steps] == pytest.approx(scores, abs=1e-6)


def test_a_killed_pruning_goes_on(gallery: Path, tmp_path: Path, cli: Cli, begun: Begun) -> None:
    out = tmp_path / "run"
    arguments = f"prune test_resnet --gallery {gallery} --data {DATA} --target 0.5x --out {out}"
    arguments += (
        " --no-pretrained --resolution 32 --batch 32 --criterion magnitude --rounds 2 --round-to 1"
    )
    arguments += " --align-epochs 1 --epochs 1 --finish-epochs 1"
    command = f"import sys; sys.argv[1:] = {arguments.split()}; from nas.cli import main; main()"
    process = begun(command)
    while process.is_alive() and finished(out / "study.db") < 2:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = Run.open(out).records()
    assert 2 <= len(before) < 4
    code, printed, complaint = cli(*arguments.split())
    assert code == 0, complaint
    after = Run.open(out).records()
    assert after[: len(before)] == before
    assert [r.fidelity for r in after] == ["uncut", "round 1 of 2", "round 2 of 2", "finished"]
    assert "round 2 of 2" in printed
    assert "Test classes, pruned: cross-test mAP" in printed
    assert re.search(r"0\.4\d\d of the MACs and \d\.\d+ of the latency in ONNX", printed)


def finished(database: Path) -> int:
    """Trials that are complete, read without taking part in the run."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            query = "select count(*) from trials where state = 'COMPLETE'"
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.usefixtures("no_files")
def test_a_round_that_has_reached_its_figure_already_is_not_cut(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On narrow networks one step of the widths can be larger than a round."""
    asked = []

    def coarse(model: QueryModel, target: Target, **options: Any) -> QueryModel:
        asked.append(target.value)
        return cut(model, 0.5)

    monkeypatch.setattr("nas.recipes.prune_steps.reach", coarse)
    settings = config(gallery, criterion="magnitude", target="0.6x", finish=None)
    uncut, first, second = prune(settings, tmp_path).steps
    assert len(asked) == 1
    assert first.macs == second.macs < 0.6 * uncut.macs


@pytest.mark.usefixtures("no_files")
def test_growing_fades_and_then_cuts(gallery: Path, tmp_path: Path) -> None:
    settings = config(gallery, schedule="growing", criterion="magnitude")
    uncut, faded, cut, last = prune(settings, tmp_path).steps
    assert [r.fidelity for r in (faded, cut, last)] == ["faded", "cut", "finished"]
    assert faded.macs == uncut.macs > 2 * cut.macs
    assert cut.macs == last.macs


def test_what_cannot_be_reached_stops_before_any_training(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Aligner, "align", None)
    out = tmp_path / "run"
    with pytest.raises(PruningError, match=r"cannot be reached: the lowest .* is [\d.]+k MACs"):
        prune(config(gallery, target="0.001x"), out)
    assert not out.exists()


def test_other_settings_are_refused(pruned: Pruned, gallery: Path) -> None:
    with pytest.raises(StudyError, match=r"begun with target = '0.4x', not '0.3x'"):
        prune(config(gallery, target="0.3x"), pruned.run.path)


@pytest.mark.usefixtures("no_files")
def test_a_model_of_this_gallery_is_not_aligned_again(
    pruned: Pruned, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    align, titles = Aligner.align, []

    def listening(self: Aligner, *arguments: Any, **options: Any) -> Any:
        titles.append(options["title"])
        return align(self, *arguments, **options)

    monkeypatch.setattr(Aligner, "align", listening)
    file = pruned.files[0].path
    settings = {"model": str(file), "resolution": None, "schedule": "one_shot", "finish": None}
    again = prune(config(gallery, target="0.8x", **settings), tmp_path)
    assert titles == ["cut (2/2)"]
    assert again.steps[0].macs == pruned.steps[-1].macs
    assert again.steps[0].cross_test == pytest.approx(pruned.steps[-1].cross_test, abs=1e-6)
    assert again.steps[1].macs <= 0.8 * again.steps[0].macs


def test_a_model_of_another_dimension_is_refused(gallery: Path, tmp_path: Path) -> None:
    save_model(
        timm_query_model("test_resnet", 3, resolution=32, pretrained=False),
        tmp_path / "m.safetensors",
    )
    settings = config(gallery, model=str(tmp_path / "m.safetensors"), resolution=None)
    with pytest.raises(StudyError, match="gives 3 dimensions, but the gallery"):
        prune(settings, tmp_path / "run")
    with pytest.raises(StudyError, match="takes images of 32 pixels, not 64"):
        prune(settings.model_copy(update={"resolution": 64}), tmp_path / "run")
    with pytest.raises(StudyError, match="has weights of its own; leave --checkpoint out"):
        prune(settings.model_copy(update={"checkpoint": "m.pth"}), tmp_path / "run")


def test_importance_looks_at_some_training_batches(pruned: Pruned) -> None:
    aligner, model = pruned.run.aligner, pruned.run.model(pruned.steps[0])
    losses = aligner.batch_losses(batches=2, size=16)
    first, second = losses(model)
    assert first.requires_grad
    assert first.item() != second.item()
    assert [each.item() for each in losses(model)] == [first.item(), second.item()]


@pytest.mark.parametrize(
    ("schedule", "criterion"),
    [("one_shot", "magnitude"), ("iterative", "fisher"), ("growing", "taylor")],
)
def test_a_study_searches_over_schedules_and_criteria(
    gallery: Path, tiny_study: dict[str, Any], tmp_path: Path, schedule: str, criterion: str
) -> None:
    options = {"resolutions": [32], "schedules": ["one_shot", schedule], "rounds": 2}
    options |= {"criteria": ["random", criterion]}
    space = {**tiny_study["spaces"]["cuts"], "options": options, "importance_batches": 2}
    content = {**tiny_study, "spaces": {"cuts": space}}
    run = Run.create(tmp_path, StudyConfig.model_validate(content))
    run.prepare()
    route = run.routes["cuts"]
    assert isinstance(route, PrunedRoute)
    params = {
        name: 0.5 if name.startswith("ratio_") else schedule if name == "schedule" else values
        for name, values in {
            **dict.fromkeys(route.space.distributions()),
            "resolution": 32,
            "criterion": criterion,
        }.items()
    }
    architecture = Architecture("pruned", params)
    model = route.candidate(architecture, run.aligner).model
    assert count_macs(model, 32) == route.space.macs(architecture, model.dimension)
    assert not torch.isnan(model(torch.rand(2, 3, 32, 32))).any()


def test_supported_families_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["querynas", "prune", "--list"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert not exit.value.code
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[-1] == "resnet18" for line in lines)
    assert len(lines) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "1kparams"], "cannot be reached: the lowest that cutting this model"),
        (["--target", "half"], "'half' is no target"),
        (["--target", "0.5x", "--loss", "regresion"], "regression"),
        (["--target", "0.5x", "--loss", "{ssp: 1"], "--loss is '{ssp: 1': give a name, or weights"),
        (["--target", "0.5x", "--test", "0"], "--test is 0.0: Input should be greater than 0"),
        (["--target", "0.5x", "--val", "0.5", "--test", "0.5"], "leave nothing to train on"),
    ],
)
def test_refusals_are_one_sentence(
    arguments: list[str],
    words: str,
    gallery: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["querynas", "prune", "test_resnet", "--gallery", str(gallery), "--data", DATA]
    command += ["--out", str(tmp_path / "run"), "--resolution", "32", "--no-pretrained", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pruned_files_load_alone(pruned: Pruned) -> None:
    model = load_model(pruned.files[0].path)
    assert count_macs(model, model.resolution) == pruned.steps[-1].macs


def test_a_pruned_model_is_held_against_the_uncut_network_without_training(
    pruned: Pruned, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    uncut, run = pruned.steps[0], pruned.run
    given = config(Path(run.config.gallery), checkpoint=str(weights))
    found = better_without_training(run, given, replace(uncut, cross_test=0.0))
    assert found is not None
    assert (found.macs, found.encoder.resolution) == (uncut.macs, 32)
    assert better_without_training(run, given, replace(uncut, cross_test=1.0)) is None
    fresh = config(Path(run.config.gallery))
    assert better_without_training(run, fresh, replace(uncut, cross_test=0.0)) is None


@pytest.mark.usefixtures("no_files")
def test_a_model_that_ends_at_a_level_is_pruned(gallery: Path, tmp_path: Path) -> None:
    given = config(gallery, levels=2, schedule="one_shot", finish=None, round_to=4)
    done = prune(given, tmp_path)
    uncut, last = (done.run.model(step) for step in (done.steps[0], done.steps[-1]))
    assert count_macs(last, 32) == done.steps[-1].macs <= 0.4 * count_macs(uncut, 32)
    assert last.origin is not None
    assert last.origin["timm"]["levels"] == ["layer1", "layer2"]
    with pytest.raises(StudyError, match="begun with levels = 2, not 3"):
        prune(given.model_copy(update={"levels": 3}), tmp_path)


def test_levels_that_a_model_cannot_end_at_are_refused(
    pruned: Pruned, gallery: Path, tmp_path: Path
) -> None:
    with pytest.raises(SearchSpaceError, match="'test_resnet' has 4 levels, not 5"):
        prune(config(gallery, levels=5), tmp_path / "run")
    saved = config(gallery, model=str(pruned.files[0].path), resolution=None, levels=2)
    with pytest.raises(StudyError, match="is a saved one; leave --levels out"):
        prune(saved, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_study_cuts_a_backbone_that_ends_at_a_level(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    space = {**tiny_study["spaces"]["cuts"], "levels": 2}
    content = {**tiny_study, "spaces": {"cuts": space}}
    run = Run.create(tmp_path, StudyConfig.model_validate(content))
    route = run.routes["cuts"]
    assert isinstance(route, PrunedRoute)
    architecture = route.space.sample(random.Random(0))
    model = route.untrained(architecture)
    assert model.origin is not None
    assert len(model.origin["timm"]["levels"]) == 2
    with pytest.raises(ValidationError, match="'levels' does not belong in there"):
        PrunedConfig(route="pruned", backbone="resnet10t", options={"levels": 2})
