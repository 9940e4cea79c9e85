"""The search as its users meet it: fronts, budgets, failures, kills and second thoughts."""

import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from compat.errors import CompatError
from nas.candidates.routes import SupernetRoute
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.ladder import finish
from nas.study.run import Run
from nas.study.trials import search
from searchspaces import count_macs

Begun = Callable[[str], BaseProcess]
Cli = Callable[..., tuple[int, str, str]]


def changed(study: dict[str, Any], **fields: Any) -> StudyConfig:
    return StudyConfig.model_validate({**study, **fields})


def begin(config: StudyConfig, path: Path) -> None:
    """Leave a run folder in which something was computed already."""
    Run.create(path, config).save()
    (path / "shared").mkdir()
    (path / "shared" / "slices.checkpoint").touch()


def outcome(run: Run) -> list[tuple[str, int, float]]:
    return [(r.architecture.digest, r.macs, r.cross_test) for r in run.front()]


def only(study: dict[str, Any], route: str) -> dict[str, Any]:
    return {"spaces": {route: study["spaces"][route]}, "finish": {"models": 0}}


def test_both_kinds_of_candidate_are_scored(tiny_run: Run) -> None:
    records = tiny_run.records()
    searched = [r for r in records if r.parent is None]
    assert len(searched) == 6
    assert {r.fidelity for r in searched} == {"shared weights", "re-aligned"}
    for record in records:
        assert 0 < record.cross_test <= 1
        assert record.interval[0] <= record.cross_test <= record.interval[1]
        assert record.paragon == records[0].paragon


def test_a_member_of_the_front_was_finished(tiny_run: Run) -> None:
    (finished,) = [r for r in tiny_run.records() if r.parent is not None]
    parent = tiny_run.record(finished.parent)
    assert finished.fidelity == "finished"
    assert finished.architecture == parent.architecture
    assert finished.macs == parent.macs
    assert finish(tiny_run) == [finished]  # and is not finished a second time


def test_optuna_opens_the_study(tiny_run: Run) -> None:
    study = optuna.load_study(study_name=None, storage=tiny_run.storage_url)
    assert study.metric_names == ["macs", "cross_test"]
    trial = study.best_trials[0]
    assert trial.values == [trial.user_attrs["macs"], trial.user_attrs["cross_test"]]
    assert optuna.visualization.plot_pareto_front(study).data


@pytest.mark.parametrize("fidelity", ["shared weights", "re-aligned", "finished"])
def test_a_model_comes_back_as_it_was_scored(tiny_run: Run, fidelity: str) -> None:
    record = next(r for r in tiny_run.records() if r.fidelity == fidelity)
    again = Run.open(tiny_run.path)
    model = again.model(record)
    embeddings = again.data.val.embed(model)
    score = again.data.val.score(embeddings)
    assert score.cross_test.map == pytest.approx(record.cross_test, abs=1e-6)
    if fidelity == "shared weights":
        assert record.self_test is None  # no objective asks for it
    else:
        # a query that is as near to two images has them in either order
        assert score.self_test.map == pytest.approx(record.self_test, abs=1e-3)
    assert record.macs == count_macs(model, model.resolution)


def test_the_same_seed_gives_the_same_front(
    tiny_config: StudyConfig, tiny_run: Run, tmp_path: Path
) -> None:
    assert outcome(search(tiny_config, tmp_path / "again")) == outcome(tiny_run)


def test_a_finished_search_goes_on_where_more_is_asked(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    config = changed(tiny_study, **only(tiny_study, "slices"), trials=3)
    before = [r.trial for r in search(config, tmp_path / "run").records()]
    after = [r.trial for r in search(config, tmp_path / "run", trials=5).records()]
    assert (len(before), len(after)) == (3, 5)
    assert after[:3] == before


def test_a_failing_trial_is_recorded_and_the_study_goes_on(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = SupernetRoute.candidate, []

    def sometimes(self: SupernetRoute, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of luck")
        return original(self, *args)

    monkeypatch.setattr(SupernetRoute, "candidate", sometimes)
    config = changed(tiny_study, **only(tiny_study, "slices"), trials=4)
    run = search(config, tmp_path / "run")
    assert len(run.records()) == 3
    (failed,) = [t for t in run.study.trials if t.state == optuna.trial.TrialState.FAIL]
    assert failed.user_attrs["error"] == "RuntimeError: out of luck"


def test_when_all_candidates_fail_the_last_error_is_told(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(SupernetRoute, "candidate", never)
    config = changed(tiny_study, **only(tiny_study, "slices"), trials=2)
    with pytest.raises(StudyError, match=r"All 2 candidates .* out of luck"):
        search(config, tmp_path / "run")


def test_no_candidate_leaves_the_budget(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    config = changed(
        tiny_study,
        **only(tiny_study, "slices"),
        trials=5,
        budget={"max_macs": 250_000, "min_macs": 120_000},
    )
    run = search(config, tmp_path / "run")
    assert len(run.records()) == 5
    assert all(120_000 <= r.macs <= 250_000 for r in run.records())


@pytest.mark.parametrize("route", ["slices", "cuts"])
def test_a_budget_that_nothing_meets_is_refused_before_training(
    tiny_study: dict[str, Any], tmp_path: Path, route: str
) -> None:
    config = changed(tiny_study, **only(tiny_study, route), budget={"max_macs": 1000})
    with pytest.raises(StudyError, match=r"max_macs = 1k admits no candidate .* smallest has"):
        search(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("loss", "ssp"), ("seed", 3), ("objectives", ["macs", "self_test"])]
)
def test_a_run_is_not_continued_as_another_study(
    tiny_study: dict[str, Any], tmp_path: Path, tiny_config: StudyConfig, field: str, value: Any
) -> None:
    begin(tiny_config, tmp_path / "run")
    with pytest.raises(StudyError, match=f"was begun with {field}"):
        Run.create(tmp_path / "run", changed(tiny_study, **{field: value}))


def test_a_run_from_before_a_setting_existed_is_continued(
    tmp_path: Path, tiny_config: StudyConfig
) -> None:
    begin(tiny_config, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    content = json.loads(path.read_text())
    del content["identity"]["spaces"]["slices"]["training"]["distill"]
    path.write_text(json.dumps(content))
    assert Run.create(tmp_path / "run", tiny_config).config == tiny_config.with_loss()


def test_settings_may_be_mended_before_anything_was_computed(
    tiny_study: dict[str, Any], tmp_path: Path, tiny_config: StudyConfig
) -> None:
    Run.create(tmp_path / "run", tiny_config).save()
    Run.create(tmp_path / "run", changed(tiny_study, seed=3)).save()
    assert Run.open(tmp_path / "run").config.seed == 3


def test_two_runs_in_one_storage_do_not_mix(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one = changed(tiny_study, **only(tiny_study, "slices"), trials=2)
    two = changed(tiny_study, **only(tiny_study, "slices"), trials=3, seed=1)
    first = search(one, tmp_path / "one", storage=url)
    second = search(two, tmp_path / "two", storage=url)
    assert (len(first.records()), len(second.records())) == (2, 3)
    assert len(Run.open(tmp_path / "one").records()) == 2


def test_imported_vectors_are_enough(
    tiny_study: dict[str, Any], gallery: Path, tmp_path: Path
) -> None:
    from compat.gallery import GallerySpace, import_gallery

    space = GallerySpace.open(gallery)
    np.save(tmp_path / "g.npy", space.vectors)
    (tmp_path / "ids.txt").write_text("\n".join(space.ids))
    import_gallery(tmp_path / "g.npy", tmp_path / "imported", ids=tmp_path / "ids.txt")
    config = changed(
        tiny_study,
        **only(tiny_study, "slices"),
        gallery=str(tmp_path / "imported"),
        trials=2,
    )
    run = search(config, tmp_path / "run")
    assert len(run.records()) == 2
    built = Run.create(tmp_path / "other", changed(tiny_study)).data.val
    assert run.records()[0].paragon == built.score(built.vectors).paragon.map


def test_any_space_can_be_searched_alone(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    slices = tiny_study["spaces"]["slices"]
    alone = {
        "route": "standalone",
        "space": "mbconv",
        "options": slices["options"],
        "training": slices["training"],
    }
    run = search(changed(tiny_study, spaces={"alone": alone}, trials=2), tmp_path / "run")
    searched = [r for r in run.records() if r.parent is None]
    assert [r.fidelity for r in searched] == ["aligned alone"] * 2
    model = run.model(searched[0])
    embeddings = run.data.val.embed(model)
    again = run.data.val.score(embeddings).cross_test.map
    assert again == pytest.approx(searched[0].cross_test, abs=1e-6)
    queries = run.data.val.embed_queries(model)
    assert run.data.val.cross_test(queries).map == pytest.approx(again, abs=1e-6)
    with pytest.raises(StudyError, match="was begun with seed"):
        Run.create(run.path, changed(tiny_study, spaces={"alone": alone}, seed=3))


def test_a_space_that_does_not_know_its_ends_gives_up_on_a_budget(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.trials._PATIENCE", 20)
    slices = tiny_study["spaces"]["slices"]
    alone = {"route": "standalone", "space": "mbconv", "options": slices["options"]}
    config = changed(tiny_study, spaces={"alone": alone}, budget={"max_macs": 1000})
    with pytest.raises(StudyError, match="lies within the budget; widen it"):
        search(config, tmp_path / "run")


def test_pictures_that_vanished_are_named(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compat.data import BrokenImageError
    from compat.data.facades.source import FacadeSource

    run = Run.create(tmp_path / "run", changed(tiny_study))
    lost = int(run.data.splits.test.queries[0])
    original = FacadeSource.load

    def load(self: Any, index: int) -> Any:
        if index == lost:
            raise BrokenImageError("gone")
        return original(self, index)

    monkeypatch.setattr(FacadeSource, "load", load)
    monkeypatch.setattr("compat.data.cache.BROKEN_SHARE", 0.5)
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CompatError, match="vectors for 1 images that cannot be read now"):
        run.data.test.pixels(16)


def test_a_run_is_not_continued_with_another_gallery(
    tiny_study: dict[str, Any], tmp_path: Path, tiny_config: StudyConfig
) -> None:
    from compat.data import open_data
    from compat.gallery import build_gallery, load_gallery_model

    begin(tiny_config, tmp_path / "run")
    other = tmp_path / "other"
    model = load_gallery_model("timm:resnet10t,pretrained=false,resolution=64")
    build_gallery(open_data(tiny_study["data"]), model, other)
    with pytest.raises(StudyError, match="was begun with gallery = "):
        Run.create(tmp_path / "run", changed(tiny_study, gallery=str(other)))


def test_a_gallery_of_other_images_is_refused(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    config = changed(tiny_study, data="facades:classes=17,images=8,size=32,seed=0")
    with pytest.raises(CompatError, match=r"has no vectors for 8 of the 136 images"):
        Run.create(tmp_path / "run", config)


def test_views_of_test_images_are_refused(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    config = changed(tiny_study, split={"seed": 5})
    with pytest.raises(CompatError, match="views of other training images"):
        Run.create(tmp_path / "run", config)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is no run folder"):
        Run.open(tmp_path)


def test_further_objectives_are_measured(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    config = changed(
        tiny_study,
        **only(tiny_study, "slices"),
        trials=2,
        objectives=["latency", "parameters", "cross_test"],
    )
    run = search(config, tmp_path / "run")
    trials = run.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    for trial, record in zip(trials, run.records(), strict=True):
        assert trial.values == [record.costs["latency"], record.parameters, record.cross_test]
        assert record.costs["latency"] > 0


# up to its tenth trial GP draws at random
@pytest.mark.parametrize(("sampler", "trials"), [("nsga2", 5), ("gp", 11)])
def test_three_objectives_within_bounds_lead_to_a_front(
    tiny_study: dict[str, Any], tmp_path: Path, sampler: str, trials: int
) -> None:
    config = changed(
        tiny_study,
        **only(tiny_study, "slices"),
        sampler=sampler,
        trials=trials,
        start=4,
        objectives=["macs", "int8_bytes", "product"],
        budget={"max_macs": 400_000, "max_parameters": "11k", "max_latency": "1000ms"},
    )
    run = search(config, tmp_path / "run")
    records = {record.trial: record for record in run.records()}
    assert len(records) == trials
    outside = 0
    for trial in run.study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        assert set(trial.constraints) == {"max_macs", "max_parameters", "max_latency"}
        record = records.get(trial.number)
        if record is None:
            outside += 1
            assert max(trial.constraints.values()) > 0
            continue
        assert record.macs <= 400_000
        assert record.parameters <= 11_000
        assert trial.constraints["max_latency"] == pytest.approx(record.costs["latency"] - 1)
        assert trial.values == [record.macs, record.costs["int8_bytes"], record.product]
    assert outside > 0  # the first proposals hold both ends of the space
    front = [(r.macs, r.costs["int8_bytes"], r.product) for r in run.front()]
    assert sorted(front) == sorted({tuple(trial.values) for trial in run.study.best_trials})


def test_a_run_of_an_older_version_goes_on(
    tiny_study: dict[str, Any], tmp_path: Path, tiny_config: StudyConfig
) -> None:
    begin(tiny_config, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    content = json.loads(file.read_text())
    content["identity"]["budget"] = {"min_macs": None, "max_macs": None}
    del content["identity"]["latency_table"]
    file.write_text(json.dumps(content))
    assert Run.create(tmp_path / "run", tiny_config).study_name == content["study"]
    with pytest.raises(StudyError, match="was begun with budget"):
        Run.create(tmp_path / "run", changed(tiny_study, budget={"max_parameters": 5}))


def test_a_bounded_search_goes_on_after_finishing(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    config = changed(
        tiny_study,
        spaces={"slices": tiny_study["spaces"]["slices"]},
        trials=2,
        start=0,
        budget={"max_parameters": "1M"},
    )
    search(config, tmp_path / "run")
    run = search(config, tmp_path / "run", trials=4)
    assert len([r for r in run.records() if r.parent is None]) == 4
    for record in run.records():
        trial = run.study.trials[record.trial]
        assert trial.constraints["max_parameters"] == pytest.approx(record.parameters / 1e6 - 1)


def completed_trials(database: Path) -> int:
    """Look without Optuna, which would create the tables that the search is creating."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            query = "SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'"
            return int(opened.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # no file, no table, or locked at the moment
        return 0


def test_a_killed_search_goes_on(
    tiny_study: dict[str, Any], tmp_path: Path, cli: Cli, begun: Begun
) -> None:
    study = {**tiny_study, **only(tiny_study, "slices"), "trials": 8}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    arguments = ["search", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run")]
    process = begun(f"import sys; sys.argv[1:] = {arguments}; from nas.cli import main; main()")
    database = tmp_path / "run" / "study.db"
    deadline = time.monotonic() + 120
    while completed_trials(database) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = Run.open(tmp_path / "run").records()
    assert 3 <= len(kept) < 8

    code, _, complaint = cli(*arguments)
    assert code == 0, complaint
    after = Run.open(tmp_path / "run").records()
    assert len(after) == 8
    assert after[: len(kept)] == kept


def test_a_second_search_of_a_folder_waits_for_its_turn(
    tiny_study: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spaces = {"slices": tiny_study["spaces"]["slices"]}
    config = changed(tiny_study, spaces=spaces, trials=3)
    run = search(config, tmp_path / "run")
    with caplog.at_level("INFO", logger="querynas"), ThreadPoolExecutor(1) as pool:
        with run.turn():
            second = pool.submit(search, config, tmp_path / "run")
            with pytest.raises(TimeoutError):
                second.result(timeout=2)
        again = second.result()
    assert "Another search works on" in caplog.text
    assert again.records() == run.records()


def test_two_workers_share_a_study(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    config = changed(tiny_study, **only(tiny_study, "slices"), trials=8)
    run = search(config, tmp_path / "run", workers=2)
    assert len(run.records()) >= 8


def test_run_json_names_the_gallery(tiny_run: Run) -> None:
    content = json.loads((tiny_run.path / "run.json").read_text())
    fingerprint = tiny_run.data.gallery.fingerprint
    assert content["identity"]["gallery fingerprint"] == fingerprint
