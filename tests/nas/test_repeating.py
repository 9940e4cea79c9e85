"""Repeats with other seeds: what is trained, what is kept, and going on after a stop."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compat.tasks.training_set import TrainingSet
from nas.alignment.aligner import Aligner
from nas.cli import main
from nas.errors import StudyError
from nas.statistics.repeats import Repeat, estimate, repeat, repeated
from nas.study.front import Record
from nas.study.run import Run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the study."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of every alignment since the test began."""
    seeds: list[int] = []
    align = Aligner.align

    def noted(self: Aligner, *arguments: Any, **options: Any) -> Any:
        seeds.append(self.seed)
        return align(self, *arguments, **options)

    monkeypatch.setattr(Aligner, "align", noted)
    return seeds


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["querynas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call


def of_route(run: Run, route: str) -> Record:
    return next(r for r in run.records() if r.route == route and r.parent is None)


def test_the_interval_is_students() -> None:
    found = estimate([0.5, 0.6, 0.7])
    assert found.mean == pytest.approx(0.6)
    # t(.975; 2) = 4.302653, standard deviation .1
    assert found.half == pytest.approx(4.302653 * 0.1 / 3**0.5, abs=1e-6)
    assert str(found) == "0.6000 ± 0.2484"
    assert str(estimate([0.5])) == "0.5000"


def test_a_slice_is_aligned_alone_by_other_seeds(run: Run, trainings: list[int]) -> None:
    record = of_route(run, "slices")
    (done,) = repeat(run, [record], seeds=2)
    assert (done.record, done.how, done.seeds) == (record, "aligned alone", 2)
    assert len(set(trainings)) == len(trainings) == 2
    assert run.config.seed not in trainings
    stored = json.loads((run.path / "repeats.json").read_text())
    assert [each["seed"] for each in stored] == trainings
    assert len({each["val"] for each in stored}) == 2
    assert done.val.mean == pytest.approx(sum(each["val"] for each in stored) / 2)
    assert done.test.mean == pytest.approx(sum(each["test"] for each in stored) / 2)
    assert not list((run.path / "shared").glob("repeat-*"))
    assert repeated(run) == [done]

    (more,) = repeat(run, [record], seeds=3)  # only the third is trained
    assert (more.seeds, len(trainings)) == (3, 3)
    (run.path / "repeats.json").unlink()
    assert repeat(run, [record], seeds=2) == [done]  # the same seeds give the same figures


def test_what_was_cut_is_cut_and_finished_again(run: Run, trainings: list[int]) -> None:
    cut = of_route(run, "cuts")
    shared = (run.path / "shared" / "cuts.safetensors").read_bytes()
    (done,) = repeat(run, [cut], seeds=1)
    assert (done.how, done.inherits, done.val.half) == ("cut and re-aligned", True, None)
    (finished,) = [r for r in run.records() if r.parent is not None]
    again = {r.record.trial: r for r in repeat(run, [cut, finished], seeds=1)}
    assert again[cut.trial] == done
    assert again[finished.trial].how.endswith(", finished")
    assert len(set(trainings)) == 1
    assert len(trainings) == 3
    assert (run.path / "shared" / "cuts.safetensors").read_bytes() == shared


def test_a_stopped_command_goes_on(
    run: Run, cli: Cli, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = of_route(run, "slices")
    arguments = ("repeat", run.path, "--trials", record.trial, "--seeds", 2)
    align = Aligner.align

    def stopped(self: Aligner, *arguments: Any, **options: Any) -> Any:
        if len(trainings) == 1:
            raise KeyboardInterrupt
        return align(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Aligner, "align", stopped)
        code, _, err = cli(*arguments)
    assert code == 130
    assert "the same command goes on" in err
    assert repeated(run)[0].seeds == 1
    code, out, err = cli(*arguments)
    assert code == 0, err
    (done,) = repeated(run)
    assert (done.seeds, len(trainings)) == (2, 2)
    for text in ("aligned alone", str(done.val), str(done.test), "95% t-interval"):
        assert text in out
    assert "backbone" not in out


def test_a_training_goes_on_from_its_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record = of_route(run, "slices")
    with monkeypatch.context() as patch:

        def killed(**fields: Any) -> Repeat:
            raise KeyboardInterrupt

        patch.setattr("nas.statistics.repeats.Repeat", killed)
        with pytest.raises(KeyboardInterrupt):
            repeat(run, [record], seeds=1)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "epoch", lambda *args, **options: pytest.fail("trained again"))
        (done,) = repeat(run, [record], seeds=1)
    assert not list((run.path / "shared").glob("repeat-*"))
    (run.path / "repeats.json").unlink()
    assert repeat(run, [record], seeds=1) == [done]


def test_what_cannot_be_repeated_is_refused(run: Run, cli: Cli) -> None:
    def refused(sentence: str, *arguments: object) -> None:
        code, _, err = cli("repeat", run.path, *arguments)
        assert code == 2
        assert sentence in err
        assert "Traceback" not in err

    refused("either --trials")
    refused("either --trials", "--trials", "1", "--front")
    refused("'1;2' is no list of trials", "--trials", "1;2")
    refused("no scored trial 999", "--trials", "0,999")
    (run.path / "repeats.json").write_text("[{}]")
    refused("repeats.json' cannot be read", "--front")
    (run.path / "prune.json").write_text("{}")
    with pytest.raises(StudyError, match="is a pruning"):
        repeat(run, run.front(), seeds=2)
