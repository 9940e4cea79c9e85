"""Ties on a front: worked by hand, against loops, and how often they err."""

import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.evaluation import paired_difference
from compat.evaluation.significance import difference_by_class
from nas.cli import main
from nas.errors import StudyError
from nas.statistics.ties import Ties, compare_members, distinguish
from nas.study.query_scores import kept, restore
from nas.study.run import Run
from searchspaces.support.errors import QuerynasError


def classes_of(count: int, size: int = 2) -> np.ndarray:
    return np.repeat(np.arange(count), size)


def compare(*members: np.ndarray, classes: np.ndarray) -> Ties:
    """Members in the order of their cost, called 1, 2, 3…"""
    numbered = dict(enumerate(members, start=1))
    return compare_members(numbered, {n: [n] for n in numbered}, classes)


def test_equal_precisions_are_tied_and_better_on_every_query_is_not() -> None:
    classes = classes_of(6)
    ap = np.linspace(0.2, 0.6, 12)
    ties = compare(ap, ap, ap + 0.1, classes=classes)
    assert ties.gains[2].difference.p_value == 1.0
    assert ties.tied_with(1) is None  # nothing is cheaper
    assert ties.tied_with(2) == 1
    # All of the 2^6 exchanges but the observed one and its mirror image are nearer to 0: 2 / 64
    # is no less than 5% / 2, the level of two comparisons.
    assert ties.gains[3].difference.p_value == 2 / 64
    assert ties.tied_with(3) == 1
    assert compare(ap, ap + 0.1, classes=classes).tied_with(2) is None
    assert compare(ap[:10], ap[:10] + 0.1, classes=classes_of(5)).tied_with(2) == 1  # 2 / 32 > 5%


def test_a_class_counts_with_its_queries() -> None:
    classes = np.array([7, 7, 7, 3, 9, 9])
    first = np.array([0.9, 0.8, 0.7, 0.5, 0.4, np.nan])
    second = np.array([0.6, 0.7, 0.7, 0.6, 0.2, np.nan])
    found = difference_by_class(first, second, classes)
    assert found.mean == pytest.approx((0.3 + 0.1 + 0.0 - 0.1 + 0.2) / 5)
    assert found.queries == 5
    sums = [0.4, -0.1, 0.2]  # of classes 7, 3 and 9
    reached = [
        abs(np.dot(signs, sums)) >= sum(sums) - 1e-9
        for signs in itertools.product((-1, 1), repeat=3)
    ]
    assert found.p_value == pytest.approx(np.mean(reached))
    low, high = found.interval
    assert 3 * min(sums) / 5 - 1e-9 <= low <= found.mean <= high <= 3 * max(sums) / 5 + 1e-9


@given(st.integers(0, 99), st.integers(2, 30))
@settings(max_examples=20)
def test_classes_of_one_query_are_plain_queries(seed: int, count: int) -> None:
    first, second = np.random.default_rng(seed).random((2, count))
    expected = paired_difference(first, second)
    for classes in (np.arange(count), np.full(count, -1)):  # without a class a query is its own
        found = difference_by_class(first, second, classes)
        assert found.mean == pytest.approx(expected.mean)
        assert found.interval == pytest.approx(expected.interval)
        assert found.p_value == expected.p_value


def test_those_that_are_not_marked_rise_in_sure_steps() -> None:
    classes = classes_of(10, 1)
    zero = np.zeros(10)
    small = np.where(np.arange(10) < 7, 0.1, -0.1)  # 7 of 10 classes: p = .34
    large = small + 0.1  # never worse than the first, and 7 times better: p = 2 / 2^7 = .0156
    ties = compare(zero, small, large, large + 0.3, classes=classes)
    assert ties.tied_with(2) == 1
    # The third is compared with the first and not with its neighbour, which is not sure itself.
    assert (ties.gains[3].over, ties.gains[3].tied) == (1, False)
    assert (ties.gains[4].over, ties.gains[4].tied) == (3, False)


def test_only_what_costs_no_more_counts_as_cheaper() -> None:
    classes = classes_of(8, 1)
    precisions = {1: np.full(8, 0.5), 2: np.full(8, 0.6), 3: np.full(8, 0.6), 4: np.full(8, 0.4)}
    costs = {1: [1.0, 9.0], 2: [2.0, 5.0], 3: [3.0, 9.0], 4: [9.0, 9.0]}
    ties = compare_members(precisions, costs, classes)
    assert 2 not in ties.gains  # less of the second cost than the first
    assert (ties.gains[3].over, ties.gains[3].tied) == (2, True)
    # Surely worse, so on the front for another objective: not tied, and nothing to compare with.
    assert (ties.gains[4].over, ties.gains[4].tied) == (2, False)
    assert ties.gains[4].difference.mean < 0


@pytest.mark.parametrize("members", [2, 6])
def test_the_words_say_how_many_classes_it_takes(members: int) -> None:
    def front(classes: int) -> Ties:
        better = [np.full(classes, float(n)) for n in range(members)]
        return compare(*better, classes=np.arange(classes))

    run = Run(Path("run"), config=None)  # type: ignore[arg-type]
    few = next(n for n in range(2, 20) if not front(n).gains[2].tied)
    assert f"it takes {few}" in front(few - 1).words(run)
    assert "too few" not in front(few).words(run)
    assert all(gain.tied for gain in front(few - 1).gains.values())


def precisions_of(rng: np.random.Generator, models: int, classes: int, size: int) -> np.ndarray:
    """Equally good models (models, Q): what differs is shared by the queries of a class."""
    hardness = rng.normal(size=(1, classes, 1))
    taste = rng.normal(size=(models, classes, 1))
    noise = rng.normal(size=(models, classes, size))
    values = 1 / (1 + np.exp(-(hardness + 0.5 * taste + 0.5 * noise)))
    return values.reshape(models, classes * size)


def test_one_in_twenty_equal_pairs_is_told_apart_and_many_more_without_classes() -> None:
    rng = np.random.default_rng(0)
    classes = classes_of(8, 8)
    by_class, by_query = [], []
    for _ in range(200):
        first, second = precisions_of(rng, 2, 8, 8)
        by_class.append(difference_by_class(first, second, classes).p_value < 0.05)
        if len(by_query) < 40:
            by_query.append(paired_difference(first, second).p_value < 0.05)
    assert 0.025 <= np.mean(by_class) <= 0.08
    assert np.mean(by_query) > 0.15


def test_one_in_twenty_fronts_of_equal_models_shows_a_gain() -> None:
    rng = np.random.default_rng(1)
    classes = classes_of(9, 4)
    wrong = []
    for _ in range(80):
        ties = compare(*precisions_of(rng, 4, 9, 4), classes=classes)
        wrong.append(any(g.difference.mean > 0 and not g.tied for g in ties.gains.values()))
    assert np.mean(wrong) <= 0.06


def test_scoring_keeps_small_files(tiny_run: Run) -> None:
    for record in tiny_run.records():
        ap = kept(tiny_run, record)
        assert ap is not None
        assert ap.dtype == np.float32
        assert np.nanmean(ap) == pytest.approx(record.cross_test, abs=1e-6)
        file = tiny_run.path / "query_scores" / f"trial-{record.trial}.npy"
        assert file.stat().st_size == 128 + 4 * len(tiny_run.data.splits.val.queries)


@pytest.fixture
def old_run(tiny_run: Run, tmp_path: Path) -> Run:
    """The study as a version left it that kept no average precisions."""
    shutil.copytree(tiny_run.path, tmp_path / "old", ignore=shutil.ignore_patterns("query_scores"))
    return Run.open(tmp_path / "old")


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["querynas", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    return capsys.readouterr()


def test_pareto_shows_ties(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    front = tiny_run.front()
    ties = distinguish(tiny_run, front)
    out, _ = printed(monkeypatch, capsys, "pareto", tiny_run.path)
    assert "tied with" in out
    assert ties.words(tiny_run.path) in out
    out, err = printed(monkeypatch, capsys, "pareto", tiny_run.path, "--json")
    rows = json.loads(out)
    assert rows[0]["tied_with"] is rows[0]["compared_with"] is None
    for row, record in zip(rows[1:], front[1:], strict=True):
        gain = ties.gains[record.trial]
        assert row["tied_with"] == ties.tied_with(record.trial)
        assert (row["compared_with"], row["gain_p_value"]) == (gain.over, gain.difference.p_value)
        assert row["gain"] == pytest.approx(gain.difference.mean)
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    assert "querynas:" not in err


def test_an_old_run_opens_and_says_what_is_missing(
    old_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    front = old_run.front()
    out, _ = printed(monkeypatch, capsys, "pareto", old_run.path)
    assert f"for {len(front)} of" in out
    assert "`querynas report" in out
    out, err = printed(monkeypatch, capsys, "pareto", old_run.path, "--json")
    assert all(row["tied_with"] is None for row in json.loads(out))
    assert f"for {len(front)} of" in err
    restore(old_run, front)
    for record in front:
        ap = kept(old_run, record)
        assert ap is not None
        assert np.nanmean(ap) == pytest.approx(record.cross_test, abs=1e-4)
    assert not distinguish(old_run, front).unknown


def test_files_that_are_wrong_are_refused(old_run: Run) -> None:
    first, *_ = front = old_run.front()
    file = old_run.path / "query_scores" / f"trial-{first.trial}.npy"
    file.parent.mkdir()
    file.write_bytes(b"\x93NUMPY")
    with pytest.raises(QuerynasError, match=r"trial-\d+\.npy is damaged .*delete it"):
        distinguish(old_run, front)
    np.save(file, np.zeros(3, np.float32))
    with pytest.raises(StudyError, match=r"holds float32 \(3,\), not the average"):
        kept(old_run, first)
