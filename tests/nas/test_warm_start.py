"""What a study takes from an earlier run: architectures first, weights where they fit."""

import json
import logging
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import create_trial
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.alignment.aligner import Aligner
from nas.candidates.routes import PROJECTION, PrunedRoute
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.front import Record, pareto_front
from nas.study.run import Run
from nas.study.trials import search
from nas.study.warm_start import bring, contains, proposals
from searchspaces import create_space

LINEAR = f"{PROJECTION}linear.weight"


@pytest.fixture
def earlier(tiny_run: Run, tmp_path: Path) -> Path:
    """A run folder of its own, which a test may change or remove, with more on its front."""
    folder = Path(shutil.copytree(tiny_run.path, tmp_path / "earlier"))
    run = Run.open(folder)
    space, dimension = tiny_run.routes["slices"].space, tiny_run.data.gallery.dimension
    drawn = {space.sample(random.Random(seed)) for seed in range(6)}
    model = next(r for r in run.records() if r.route == "slices")
    for place, architecture in enumerate(sorted(drawn, key=lambda a: space.macs(a, dimension))):
        record = replace(
            model,
            architecture=architecture,
            resolution=int(architecture.params["resolution"]),
            costs={**model.costs, "macs": space.macs(architecture, dimension)},
            cross_test=0.9 + place / 1000,
        )
        values = [record.macs, record.cross_test]
        run.study.add_trial(create_trial(values=values, user_attrs=record.attributes()))
    return folder


def front_of(folder: Path) -> list[Record]:
    """The front that was searched, cheapest first."""
    return pareto_front(Run.open(folder).study, finished=False)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained, so that weights stay as they were at the beginning."""
    monkeypatch.setattr(
        "nas.candidates.routes.supernet.train_supernet", lambda *args, **options: None
    )
    monkeypatch.setattr(Aligner, "align", lambda *args, **options: None)


def change_weights(file: Path) -> None:
    """Make the weights of a file others than those of any beginning."""
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    state = {k: v * 1.25 if v.ndim > 1 else v for k, v in load_file(file).items()}
    save_file(state, file, metadata=header)


def warm(study: dict[str, Any], earlier: Path, **fields: Any) -> StudyConfig:
    content = {**study, "warm_start": str(earlier), "finish": {"models": 0}, **fields}
    return StudyConfig.model_validate(content)


def begun(config: StudyConfig, path: Path) -> Run:
    """A run up to the end of its shared trainings."""
    run = Run.create(path, config)
    bring(run)
    run.save()
    run.prepare()
    return run


def with_options(study: dict[str, Any], **options: Any) -> dict[str, Any]:
    slices = study["spaces"]["slices"]
    return {"slices": {**slices, "options": {**slices["options"], **options}}}


def another_gallery(study: dict[str, Any], model: str, out: Path) -> str:
    from compat.data import open_data
    from compat.gallery import build_gallery, load_gallery_model

    build_gallery(open_data(study["data"]), load_gallery_model(model), out)
    return str(out)


def same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_the_front_of_the_earlier_run_is_proposed_first(
    tiny_study: dict[str, Any],
    tiny_run: Run,
    earlier: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    front = [(r.route, r.architecture.digest) for r in front_of(earlier)]
    spread = [(r.route, r.architecture.digest) for r in tiny_run.records()[:4]]  # its own start
    expected = list(dict.fromkeys(front + spread))
    caplog.set_level(logging.INFO, "querynas")
    config = warm(tiny_study, earlier, trials=len(expected))
    run = search(config, tmp_path / "run")
    assert [(r.route, r.architecture.digest) for r in run.records()] == expected
    assert f"{len(front)} of the {len(front)} architectures of its front" in caplog.text
    assert "shared weights of 'slices' and 'cuts'." in caplog.text


def test_proposals_outside_the_budget_are_left_out(
    tiny_study: dict[str, Any],
    earlier: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    front = front_of(earlier)
    most = front[len(front) // 2].macs
    caplog.set_level(logging.INFO, "querynas")
    run = Run.create(tmp_path / "run", warm(tiny_study, earlier, budget={"max_macs": most}))
    bring(run)
    inside = [run.proposal(r.route, r.architecture) for r in front if r.macs <= most]
    assert 0 < len(inside) < len(front)
    assert proposals(run) == inside
    left_out = len(front) - len(inside)
    assert f"(0 are not in the spaces of this study, {left_out} outside its budget)" in caplog.text


@pytest.mark.parametrize(
    ("resolutions", "fitting"), [([24, 32, 40], {24, 32}), ([16, 32], {32}), ([28, 40], set())]
)
def test_architectures_of_a_changed_space_are_taken_where_they_are_in_it(
    tiny_study: dict[str, Any],
    earlier: Path,
    tmp_path: Path,
    resolutions: list[int],
    fitting: set[int],
) -> None:
    spaces = with_options(tiny_study, resolutions=resolutions)
    run = Run.create(tmp_path / "run", warm(tiny_study, earlier, spaces=spaces))
    front = front_of(earlier)
    expected = [
        run.proposal(r.route, r.architecture)
        for r in front
        if r.route == "slices" and r.resolution in fitting
    ]
    if not expected:
        with pytest.raises(StudyError, match=r"Nothing of the run '.*earlier' fits this study"):
            bring(run)
        return
    bring(run)
    assert proposals(run) == expected
    assert not (run.warm_start / "slices.safetensors").exists()  # other options


@pytest.mark.usefixtures("untrained")
def test_shared_weights_begin_where_the_earlier_ones_ended(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    run = begun(warm(tiny_study, earlier, objectives=["parameters", "product"]), tmp_path / "run")
    for name in ("slices", "cuts"):
        before, now = (
            load_file(each / f"{name}.safetensors") for each in (earlier / "shared", run.shared)
        )
        assert before.keys() == now.keys()
        assert all(same(before[key], now[key]) for key in before)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("model", "dimension"),
    [
        ("timm:resnet10t,pretrained=false,resolution=64", 512),
        ("timm:mobilenetv3_small_050,pretrained=false,resolution=32", 1024),
    ],
)
def test_the_projection_into_another_gallery_space_begins_anew(
    tiny_study: dict[str, Any],
    earlier: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    model: str,
    dimension: int,
) -> None:
    caplog.set_level(logging.INFO, "querynas")
    for file in (earlier / "shared").glob("*.safetensors"):
        change_weights(file)
    gallery = another_gallery(tiny_study, model, tmp_path / "other")
    run = begun(warm(tiny_study, earlier, gallery=gallery), tmp_path / "run")
    cold = begun(warm(tiny_study, earlier, gallery=gallery, warm_start=None), tmp_path / "cold")
    assert run.data.gallery.dimension == dimension
    assert "without the projection into its other gallery space" in caplog.text
    for name in ("slices", "cuts"):
        before, now, fresh = (
            load_file(each / f"{name}.safetensors")
            for each in (earlier / "shared", run.shared, cold.shared)
        )
        backbone = [key for key in before if not key.startswith(PROJECTION)]
        assert all(same(before[key], now[key]) for key in backbone)
        assert not all(same(before[key], fresh[key]) for key in backbone)
        assert not same(before[LINEAR], now[LINEAR])
        assert not same(fresh[LINEAR], now[LINEAR])  # fitted to the features of the other weights


def test_a_backbone_that_is_brought_is_not_fetched(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Aligner, "align", lambda *args, **options: None)
    monkeypatch.setattr("searchspaces.query_model._download", lambda *args: pytest.fail("fetched"))
    cuts = {**tiny_study["spaces"]["cuts"], "pretrained": True}
    run = begun(warm(tiny_study, earlier, spaces={"cuts": cuts}), tmp_path / "run")
    assert (run.shared / "cuts.safetensors").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"route": "standalone", "space": "mbconv"},
        {"kernel_transform": True},
    ],
)
def test_other_shared_weights_are_not_taken(
    tiny_study: dict[str, Any],
    earlier: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
) -> None:
    slices = tiny_study["spaces"]["slices"]
    base = slices if "route" not in change else {"options": slices["options"]}
    caplog.set_level(logging.INFO, "querynas")
    config = warm(tiny_study, earlier, spaces={"slices": {**base, **change}})
    run = Run.create(tmp_path / "run", config)
    bring(run)
    assert proposals(run)
    assert "shared weights of no space." in caplog.text
    assert not list(run.warm_start.glob("*.safetensors"))


def test_weights_that_may_know_held_out_images_are_not_taken(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = another_gallery(
        tiny_study, "timm:resnet10t,pretrained=false,resolution=32", tmp_path / "other"
    )
    config = warm(tiny_study, earlier, gallery=gallery, split={"seed": 5})
    run = Run.create(tmp_path / "run", config)
    bring(run)
    assert proposals(run)
    assert "trained on another split of the same data" in caplog.text
    assert not list(run.warm_start.glob("*.safetensors"))


def test_what_cannot_be_taken_is_refused_before_anything_is_written(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    renamed = {"small": tiny_study["spaces"]["slices"]}
    sentence = (
        r"its spaces are 'slices' \(supernet\) and 'cuts' \(pruned\), those of the study 'small' "
        r"\(supernet\); give a space the name and the options that it has there"
    )
    with pytest.raises(StudyError, match=sentence):
        search(warm(tiny_study, earlier, spaces=renamed), tmp_path / "run")
    with pytest.raises(StudyError, match=r"'warm_start': '.*nowhere' is no run folder"):
        search(warm(tiny_study, tmp_path / "nowhere"), tmp_path / "run")
    (earlier / "study.db").unlink()
    with pytest.raises(StudyError, match=r"'warm_start': The run .* holds no study"):
        search(warm(tiny_study, earlier), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_read_are_named(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    weights = earlier / "shared" / "slices.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StudyError, match=r"slices.safetensors is not a readable"):
        bring(Run.create(tmp_path / "run", warm(tiny_study, earlier)))


def test_weights_of_another_version_are_named(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    shutil.copy(earlier / "shared/cuts.safetensors", earlier / "shared/slices.safetensors")
    spaces = {"slices": tiny_study["spaces"]["slices"]}
    with pytest.raises(StudyError, match=r"do not fit the network of this version in 'backbone\."):
        begun(warm(tiny_study, earlier, spaces=spaces), tmp_path / "run")


def test_a_stopped_study_goes_on_without_the_earlier_run(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = warm(tiny_study, earlier, trials=2)
    expected = [(r.route, r.architecture.digest) for r in front_of(earlier)]
    inherited = load_file(earlier / "shared" / "cuts.safetensors")

    def stopped(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the two shared trainings
        patch.setattr(PrunedRoute, "prepare", stopped)
        with pytest.raises(KeyboardInterrupt):
            search(config, tmp_path / "run")
    shutil.rmtree(earlier)
    with monkeypatch.context() as patch:  # during the first candidate
        patch.setattr(Aligner, "align", lambda *args, **options: None)
        patch.setattr("nas.study.trials.measure", stopped)
        with pytest.raises(KeyboardInterrupt):
            search(config, tmp_path / "run")
    assert same(load_file(tmp_path / "run/shared/cuts.safetensors")[LINEAR], inherited[LINEAR])

    run = search(config, tmp_path / "run")
    scored = [(r.route, r.architecture.digest) for r in run.records()]
    assert scored == expected[1:3]  # the first was being scored when the study was stopped
    assert not list(run.warm_start.glob("*.safetensors"))
    with pytest.raises(StudyError, match=r"was begun with warm_start = '.*earlier', not None"):
        Run.create(tmp_path / "run", warm(tiny_study, earlier, warm_start=None))


def proposals_of(config: StudyConfig, path: Path) -> list[Any]:
    run = Run.create(path, config)
    bring(run)
    return proposals(run)


def test_a_warm_start_may_be_mended_before_anything_was_computed(
    tiny_study: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    assert proposals_of(warm(tiny_study, earlier), tmp_path / "run")
    config = warm(tiny_study, earlier, warm_start=None)
    assert proposals_of(config, tmp_path / "run") == []
    assert not (tmp_path / "run" / "warm_start").exists()


def test_a_run_from_before_there_were_warm_starts_goes_on(
    tiny_study: dict[str, Any], earlier: Path
) -> None:
    file = earlier / "run.json"
    content = json.loads(file.read_text())
    del content["identity"]["warm_start"]
    file.write_text(json.dumps(content))
    config = StudyConfig.model_validate(tiny_study)
    assert Run.create(earlier, config).config == config.with_loss()


def test_a_space_contains_what_it_draws_and_nothing_else() -> None:
    small = {"space": "mbconv", "resolutions": [24, 32]}
    union = create_space("union", spaces={"a": small, "b": {"space": "resnet"}})
    fewer = create_space("union", spaces={"a": {**small, "resolutions": [32]}})
    rng = random.Random(0)
    drawn = [union.sample(rng) for _ in range(30)]
    assert all(contains(union, each) for each in drawn)
    kept = {each for each in drawn if contains(fewer, each)}
    assert kept == {each for each in drawn if each.params.get("a.resolution") == 32}
    assert 0 < len(kept) < len(drawn)
    assert not contains(create_space("mbconv"), drawn[0])
