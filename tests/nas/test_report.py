"""The report opens in a real browser, complete, and its figures say what the study says."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from nas.errors import StudyError
from nas.reporting import figures
from nas.reporting.page import report
from nas.reporting.pictures import examples
from nas.statistics.ties import distinguish
from nas.study.held_out import measured_on_test
from nas.study.run import Run
from searchspaces import count_macs, macs_by_part, timm_query_model

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE = """<script>
const problems = [];
addEventListener("error", event => problems.push(String(event.message)), true);
addEventListener("load", () => {
  document.querySelectorAll("img").forEach(image => { image.loading = "eager"; });
  setTimeout(() => {
    const pictures = [...document.images];
    const probe = document.createElement("pre");
    probe.id = "probe";
    probe.textContent = JSON.stringify({
      problems,
      plots: document.querySelectorAll(".js-plotly-plot .cartesianlayer .subplot").length,
      marks: document.querySelectorAll(".scatterlayer .point").length,
      wide: [...document.querySelectorAll(".js-plotly-plot")].filter(
        plot => plot.querySelector(".main-svg").clientWidth > plot.parentElement.clientWidth + 1
      ).length,
      rows: document.querySelectorAll("#front tbody tr").length,
      repeats: document.querySelectorAll("#repeats tbody tr").length,
      pictures: pictures.length,
      drawn: pictures.filter(image => image.naturalWidth > 0).length,
      unnamed: pictures.filter(image => !image.alt).length,
      requests: performance.getEntriesByType("resource")
        .map(entry => entry.name).filter(name => !name.startsWith("data:")),
    });
    document.body.append(probe);
  }, 1500);
});
</script>"""


@pytest.fixture(scope="module")
def run(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the study, of an older version, with a candidate that was trained again twice.

    It was continued with tiers, the smallest of which nothing fits.
    """
    path = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(tiny_run.path, path, ignore=shutil.ignore_patterns("query_scores"))
    recipe = {"how": "aligned alone", "trainings": []}
    trial = tiny_run.front()[0].trial
    repeats = [
        {"trial": trial, "seed": seed, "recipe": recipe, "val": val, "test": val / 2}
        for seed, val in ((1, 0.5), (2, 0.7))
    ]
    (path / "repeats.json").write_text(json.dumps(repeats))
    macs = [record.macs for record in tiny_run.front()]
    study = yaml.safe_load((path / "study.yaml").read_text())
    study["tiers"] = [min(macs) - 1, min(macs), max(macs) - 1]
    (path / "study.yaml").write_text(yaml.safe_dump(study))
    return Run.open(path)


@pytest.fixture(scope="module")
def page(run: Run) -> Path:
    return report(run)


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser made of the page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium to open the report with: install chromium")
    folder = tmp_path_factory.mktemp("browser")
    probed = folder / "probed.html"
    probed.write_text(page.read_text("utf-8").replace("<head>", f"<head>{PROBE}", 1), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"]
    options += ["--virtual-time-budget=20000", "--dump-dom", probed.as_uri()]
    done = subprocess.run([browser, *options], capture_output=True, text=True, timeout=120)
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match is not None, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(match[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")) | {
        "console": console
    }


def test_a_browser_draws_everything(run: Run, seen: dict[str, Any]) -> None:
    assert seen["problems"] == []
    assert seen["console"] == []
    assert seen["requests"] == []
    assert seen["plots"] >= 3  # front, MACs by part, progress
    assert seen["wide"] == 0
    assert seen["marks"] >= len(run.records())
    assert seen["rows"] == len(run.front())
    assert seen["repeats"] == 1
    assert seen["pictures"] >= 8 * (1 + 2 * 5)
    assert seen["drawn"] == seen["pictures"]
    assert seen["unnamed"] == 0


def test_the_page_needs_no_network(page: Path) -> None:
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?!data:)', page.read_text())


def words(page: Path) -> str:
    """The page's text without tags, on one line."""
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def test_the_page_states_the_test_scores(run: Run, page: Path) -> None:
    text = words(page)
    for record in run.front():
        scores = measured_on_test(run, record).scores
        model = run.model(record)
        embeddings = run.data.test.embed(model)
        again = run.data.test.score(embeddings)
        assert scores.cross_test.map == pytest.approx(again.cross_test.map, abs=1e-6)
        assert f"{scores.cross_test.map:.3f}" in text
        assert f"{scores.paragon.map:.3f}" in text
    assert run.data.gallery.fingerprint in text


def test_the_page_states_the_best_model_within_each_tier(run: Run, page: Path) -> None:
    table = re.search(r'<table id="tiers">(.*?)</table>', page.read_text("utf-8"), re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr>(.*?)</tr>", table[1], re.DOTALL)[1:]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    front = run.front()
    below = max(front[:-1], key=lambda record: record.accuracy)
    for found, record in zip(cells, (below, front[0]), strict=False):
        assert found[1] == str(record.trial)
        assert f"{measured_on_test(run, record).scores.cross_test.map:.3f}" in found[5]
    assert cells[2][1] == "no model of the front"


def test_the_page_states_ties_optimism_and_repeats(run: Run, page: Path) -> None:
    text, front = words(page), run.front()
    assert distinguish(run, front).words(run) in text  # measured again by the report
    promised = np.mean([r.cross_test / r.paragon for r in front])
    scores = [measured_on_test(run, r).scores for r in front]
    kept = np.mean([s.cross_test.map / s.paragon.map for s in scores])
    for words_of in (f"{promised:.1%}", f"{kept:.1%}", f"{100 * (promised - kept):+.1f} points"):
        assert words_of in text
    # t(.975; 1) = 12.7062; the values are .2 and .1 apart
    assert "0.6000 ± 1.2706" in text
    assert "0.3000 ± 0.6353" in text
    assert "that backbone" not in text


def test_test_scores_are_measured_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run.front()[0]
    before = measured_on_test(run, record)
    moved = dataclasses.replace(run, path=tmp_path)
    shutil.copy(run.path / "test_scores.json", tmp_path)
    monkeypatch.setattr(Run, "model", lambda *arguments: pytest.fail("measured again"))
    assert measured_on_test(moved, record) == before
    (tmp_path / "test_scores.json").write_text("{")
    with pytest.raises(StudyError, match=r"test_scores\.json.*delete it"):
        measured_on_test(moved, record)


def test_pictures_are_marked_right_by_class_and_mixed(tiny_run: Run) -> None:
    task = tiny_run.data.test
    rng = np.random.default_rng(0)
    guessed = rng.normal(size=task.vectors.shape).astype(np.float32)
    drawn = examples(task, {"guess": guessed}, count=6, seed=1)
    assert len(drawn) == 6
    firsts = [example.results["guess"][0].right for example in drawn]
    assert firsts == sorted(firsts, reverse=True)
    assert 1 <= sum(firsts) <= 3
    for example in drawn:
        assert list(example.results) == ["gallery network", "guess"]
        for results in example.results.values():
            assert len({found.picture.name for found in results}) == 5
            assert example.query.name not in {found.picture.name for found in results}
            for found in results:
                assert found.right == (found.picture.label == example.query.label)
    again = examples(task, {"guess": guessed}, count=6, seed=1)
    assert [e.query.name for e in again] == [e.query.name for e in drawn]


@pytest.mark.parametrize(("name", "parts"), [("resnet10t", 12), ("vit_tiny_patch16_224", 16)])
def test_parts_add_up_to_the_whole(name: str, parts: int) -> None:
    model = timm_query_model(name, 32, resolution=32, pretrained=False)
    found = macs_by_part(model, 32)
    assert sum(found.values()) == count_macs(model, 32)
    assert 2 < len(found) <= parts
    assert list(found)[-1] == "projection"


def scored_study(count: int) -> optuna.Study:
    """A study whose cross-test hangs on `width` alone; more of it is better."""
    study = optuna.create_study(directions=["minimize", "maximize"])
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "width": optuna.distributions.IntDistribution(0, 9),
        "noise": optuna.distributions.IntDistribution(0, 9),
        "fixed": optuna.distributions.IntDistribution(3, 3),
    }
    rng = np.random.default_rng(0)
    for _ in range(count):
        width, noise = (int(n) for n in rng.integers(10, size=2))
        values = [10.0 ** (1 + width / 9), (1 + width) / 20]
        study.add_trial(
            optuna.trial.create_trial(
                params={"width": width, "noise": noise, "fixed": 3},
                distributions=distributions,
                values=values,
                user_attrs={"cross_test": values[1], "parent": None},
            )
        )
    return study


def test_importances_find_what_decides_the_cross_test() -> None:
    assert figures.importances(scored_study(10)) is None
    figure = figures.importances(scored_study(60))
    assert figure is not None
    assert list(figure.data[0].y) == ["width", "noise"]
    assert figure.data[0].x[0] > 0.8


def test_progress_is_the_dominated_share_of_the_plane() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for macs, cross_test in ((1e4, 0.5), (1e6, 0.8), (1e5, 0.7)):
        trial = optuna.trial.create_trial(
            values=[macs, cross_test], user_attrs={"cross_test": cross_test, "parent": None}
        )
        study.add_trial(trial)
    # Costs on a log scale are 0, 1, 1/2. The first fills 1 x 0.5; the dearest has no width; the
    # last adds 1/2 x 0.2.
    assert list(figures.history(study).data[0].y) == pytest.approx([0.5, 0.5, 0.6])


def test_a_study_of_one_objective_shows_its_best_value() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.2, 0.6, 0.4):
        trial = optuna.trial.create_trial(
            values=[value], user_attrs={"cross_test": value, "parent": None}
        )
        study.add_trial(trial)
    best = figures.history(study).data[1]
    assert list(best.y) == pytest.approx([0.2, 0.6, 0.6])


def test_the_front_is_drawn_as_a_staircase_with_the_paragon(tiny_run: Run) -> None:
    records, front = tiny_run.records(), tiny_run.front()
    figure = figures.pareto(records, front, ties={}, stepped=True, gallery_macs=10**8)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["Pareto front"].x) == [r.macs for r in front]
    assert traces["Pareto front"].line.shape == "hv"
    assert traces["gallery network"].x == (10**8,)
    marks = [trace for trace in figure.data if trace.error_y.visible]
    assert sum(len(trace.x) for trace in marks) == len(front)
    assert figure.layout.shapes[0].y0 == records[0].paragon


def test_tied_members_are_hollow_and_bound_to_the_cheaper_one(tiny_run: Run) -> None:
    records, front = tiny_run.records(), tiny_run.front()
    cheap, tied = front[0], front[-1]
    ties = {tied.trial: cheap.trial}
    figure = figures.pareto(records, front, ties=ties, stepped=True, gallery_macs=None)
    marks = [trace for trace in figure.data if trace.error_y.visible]
    assert sum(len(trace.x) for trace in marks) == len(front)
    (hollow,) = [trace for trace in marks if trace.marker.symbol.endswith("-open")]
    assert hollow.x == (tied.macs,)
    assert f"not distinguishable at 95% from trial {cheap.trial}" in hollow.text[0]
    (band,) = [trace for trace in figure.data if "not distinguishable" in (trace.name or "")]
    assert band.x == (cheap.macs, tied.macs, None)
    assert band.y == (cheap.cross_test, tied.cross_test, None)
