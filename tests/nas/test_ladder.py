"""The fidelity ladder: screening below the search, rungs of alignment above it."""

import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import spearmanr

import nas.study.screening
from compat.training import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.config.objectives import BudgetConfig
from nas.config.study import RungConfig, StudyConfig
from nas.errors import StudyError
from nas.study.front import ancestors
from nas.study.ladder import at_rung
from nas.study.run import Run
from nas.study.side_by_side import train_all
from nas.study.surrogate import encode, regress
from nas.study.trials import search
from searchspaces import Architecture, QueryModel, count_macs, create_space

SHORT = {"epochs": 1, "batch": 16, "lr": 1e-3}


def config_of(study: dict[str, Any], **fields: Any) -> StudyConfig:
    spaces = {"slices": study["spaces"]["slices"]}
    return StudyConfig.model_validate({**study, "spaces": spaces, "finish": [], **fields})


def rungs(*models: int) -> list[dict[str, Any]]:
    return [{"models": count, "training": SHORT} for count in models]


def outcome(run: Run) -> list[tuple[int, int | None, str, float]]:
    return [(r.trial, r.parent, r.fidelity, r.cross_test) for r in run.records()]


def test_fewer_models_reach_each_higher_rung(
    tiny_study: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tiny_study, trials=6, finish=rungs(4, 2))
    with caplog.at_level(logging.INFO, "querynas"):
        run = search(config, tmp_path / "run")
    records = run.records()
    assert [len(at_rung(records, number)) for number in range(4)] == [6, 4, 2, 0]
    fidelities = [{r.fidelity for r in at_rung(records, number)} for number in range(3)]
    assert fidelities == [{"shared weights"}, {"aligned on"}, {"finished"}]
    by_trial = {r.trial: r for r in records}
    for record in at_rung(records, 2):
        below, lowest = ancestors(record, by_trial)
        assert (below.fidelity, lowest.fidelity) == ("aligned on", "shared weights")
        assert record.architecture == below.architecture == lowest.architecture
    assert "4 models were aligned on; the scores they had before order them" in caplog.text


def test_models_that_are_trained_side_by_side_become_what_they_become_in_turn(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    config = config_of(tiny_study, trials=3)
    search(config, tmp_path / "turns")
    shutil.copytree(tmp_path / "turns", tmp_path / "beside")
    finished = config.model_copy(update={"finish": config_of(tiny_study, finish=rungs(3)).finish})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        turns = search(finished, tmp_path / "turns")
        beside = search(finished, tmp_path / "beside", workers=2)
    finally:
        torch.set_num_threads(before)
    found = [{parent: score for _, parent, _, score in outcome(run)} for run in (turns, beside)]
    assert found[0] == found[1]
    assert len(at_rung(beside.records(), 1)) == 3
    assert not list((tmp_path / "beside" / "shared").glob("finish-*"))


def test_a_training_that_dies_beside_others_is_named_and_nothing_else_is_lost(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    run = search(config_of(tiny_study, trials=3, finish=rungs(2)).model_copy(), tmp_path / "run")
    rung = run.config.finish[0]
    first, second = at_rung(run.records(), 0)[:2]
    shared = tmp_path / "run" / "shared"
    checkpoint = shared / f"finish-{second.trial}.checkpoint"
    checkpoint.write_bytes(b"of nobody")
    with pytest.raises(StudyError, match=rf"The training of trial {second.trial} of '.*' ended"):
        train_all(run, [first, second], rung, threads=1)
    (done,) = shared.glob(f"finish-{first.trial}-*.safetensors")
    written = done.stat().st_mtime_ns
    checkpoint.unlink()
    assert len(train_all(run, [first, second], rung, threads=1)) == 2
    assert done.stat().st_mtime_ns == written  # what was reached is not trained again


def test_one_rung_needs_no_list(tiny_study: dict[str, Any]) -> None:
    assert config_of(tiny_study, finish=rungs(3)[0]) == config_of(tiny_study, finish=rungs(3))


@given(macs=st.integers(1_000_000, 100_000_000), epochs=st.integers(1, 50))
def test_models_of_a_rung_may_get_the_same_macs_of_training(macs: int, epochs: int) -> None:
    rung = RungConfig.model_validate(
        {"equal": "macs", "training": {"epochs": epochs, "validate_every": 2, "batch": 16}}
    )
    budget = BudgetConfig(max_macs=100_000_000)
    found = rung.training_of(macs, budget)
    assert found.epochs * macs == pytest.approx(epochs * 1e8, abs=macs / 2)
    assert found.validate_every * macs == pytest.approx(2 * 1e8, abs=macs / 2)
    assert found.batch == 16
    assert rung.training_of(100_000_000, budget) == rung.training


def test_cheap_models_are_trained_longer_where_macs_are_equal(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasted: dict[int, int] = {}
    original = Aligner.align

    def seen(self: Aligner, model: QueryModel, config: TrainingConfig, **options: Any) -> Any:
        lasted[count_macs(model, model.resolution)] = config.epochs
        return original(self, model, config, **options)

    most = 1_000_000
    rung = {**rungs(4)[0], "equal": "macs"}
    config = config_of(tiny_study, budget={"max_macs": most}, finish=rung)
    run = search(config.model_copy(update={"finish": ()}), tmp_path / "run")
    monkeypatch.setattr(Aligner, "align", seen)
    search(config, run.path)
    assert len(set(lasted.values())) > 1
    assert lasted == {macs: max(1, round(most / macs)) for macs in lasted}


def test_equal_macs_need_a_budget(tiny_study: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="`equal: macs` needs `budget"):
        config_of(tiny_study, finish={"models": 1, "equal": "macs"})


def test_a_ladder_goes_on_where_it_was_killed(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny_study, trials=5, finish=rungs(3, 2))
    whole = outcome(search(config, tmp_path / "whole"))
    original, calls = Aligner.align, []

    def killed(self: Aligner, *args: Any, **options: Any) -> Any:
        calls.append(options["title"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(Aligner, "align", killed)
    with pytest.raises(KeyboardInterrupt):
        search(config, tmp_path / "killed")
    assert outcome(search(config, tmp_path / "killed")) == whole
    assert len(calls) == 1 + 1 + 4  # the first, the killed one, and the other four


def test_a_rung_can_be_added_later(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(tiny_study, trials=5, finish=rungs(2))
    before = outcome(search(config, tmp_path / "run"))
    more = config_of(tiny_study, trials=5, finish=rungs(2, 1))
    after = outcome(search(more, tmp_path / "run"))
    assert after[:-1] == before
    assert after[-1][1] in {trial for trial, parent, *_ in before if parent is not None}


def test_proposals_without_a_chance_are_not_scored(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    screen = {"after": 5, "doubt": 0.3}
    config = config_of(tiny_study, trials=8, start=5, screen=screen, sampler="random")
    run = search(config, tmp_path / "run")
    pruned = [t for t in run.study.trials if t.state == optuna.trial.TrialState.PRUNED]
    assert len(run.records()) == 8  # what was screened out does not count
    assert pruned
    assert all(0 <= t.user_attrs["chance"] < 0.3 for t in pruned)
    assert min(t.number for t in pruned) >= 5
    again = search(config, tmp_path / "again")
    assert outcome(again) == outcome(run)


def test_a_screen_that_refuses_everything_does_not_stop_a_search(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bleak(known: np.ndarray, scores: list[float], new: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.full(len(new), -9.0), np.full(len(new), 1e-6)

    monkeypatch.setattr(nas.study.screening, "regress", bleak)
    screen = {"after": 5, "doubt": 0.5}
    config = config_of(
        tiny_study, trials=7, start=5, screen=screen, sampler="random", objectives=["cross_test"]
    )
    run = search(config, tmp_path / "run")
    assert len(run.records()) == 7
    states = [t.state.name for t in run.study.trials]
    assert states == ["COMPLETE"] * 5 + (["PRUNED"] * 20 + ["COMPLETE"]) * 2


def test_a_predictor_can_screen_networks_before_training(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    slices = tiny_study["spaces"]["slices"]
    alone = {"route": "standalone", "training": SHORT}
    alone |= {key: slices[key] for key in ("space", "options")}
    screen = {"by": "ridge", "after": 5, "doubt": 0.3}
    config = config_of(tiny_study, trials=6, start=5, spaces={"alone": alone}, screen=screen)
    run = search(config, tmp_path / "run")
    predicted = [t.user_attrs["predicted"] for t in run.study.trials]
    assert len(predicted) >= 6
    assert all(np.isfinite(predicted))
    assert len(set(predicted)) > 1


def test_a_screen_that_cannot_be_is_refused(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no screen 'rigde'; give one of surrogate, .*ridge"):
        search(config_of(tiny_study, screen={"by": "rigde"}), tmp_path / "run")
    with pytest.raises(StudyError, match=r"before training, but the space 'slices' has trained"):
        search(config_of(tiny_study, screen={"by": "ridge"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_architectures_become_places_on_their_grids() -> None:
    space = create_space(
        "mbconv",
        resolutions=[24, 32, 40],
        stem_widths=[8],
        stem_strides=[2],
        head_widths=[32, 64],
        stages=[{"widths": [8, 16], "depths": [1], "expansions": [2], "kernels": [3],
                 "activation": ["relu", "hswish"]}],
    )  # fmt: skip
    params = {
        "resolution": 32, "stem_width": 8, "stem_stride": 2, "head_width": 64, "stage1_width": 8,
        "stage1_depth": 1, "stage1_expansion": 2, "stage1_kernel": 3, "stage1_stride": 2,
        "stage1_activation": "hswish",
    }  # fmt: skip
    architecture = Architecture("mbconv", {k: params[k] for k in space.distributions()})
    (row,) = encode(space, [architecture], 16)
    places = {"resolution": [0.5], "stage1_width": [0.0], "stage1_activation": [0.0, 1.0]}
    places |= {"head_width": [1.0]}
    ordered = [place for name in space.distributions() for place in places.get(name, [])]
    assert row[:-1].tolist() == ordered  # what has no choice says nothing
    assert row[-1] == pytest.approx(np.log10(space.macs(architecture, 16)))


def test_a_surrogate_learns_from_others_and_doubts_what_it_has_not_seen() -> None:
    space, rng = create_space("mbconv"), random.Random(0)
    drawn = [space.sample(rng) for _ in range(120)]
    features = encode(space, drawn, 64)
    truth = 0.1 * features[:, 0] + 0.2 * features[:, -1] + 0.1 * features[:, 3] * features[:, 5]
    mean, deviation = regress(features[:80], truth[:80].tolist(), features[80:])
    assert spearmanr(mean, truth[80:]).statistic > 0.9
    _, far = regress(features[:80], truth[:80].tolist(), features[:1] + 3.0)
    assert far[0] > 2 * np.median(deviation)
