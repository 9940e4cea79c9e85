"""Which candidates climb the fidelity ladder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.config.objectives import OBJECTIVES
from nas.study.forecasting import Standing, gains
from nas.study.front import Record
from nas.study.promotion import promote, promote_several
from searchspaces import Architecture

BOTH = [OBJECTIVES["macs"], OBJECTIVES["cross_test"]]


def record(trial: int, macs: int, score: float, parent: int | None = None) -> Record:
    return Record(
        trial=trial,
        route="a",
        fidelity="shared weights",
        architecture=Architecture("mbconv", {"trial": trial}),
        resolution=32,
        costs={"macs": macs, "parameters": macs // 10},
        cross_test=score,
        interval=(score - 0.01, score + 0.01),
        self_test=score,
        paragon=0.9,
        parent=parent,
    )


def climb(
    rung: list[Record], count: int, after: dict[int, float], tiers: tuple[int, ...] = ()
) -> list[int]:
    """Promote one after another; a candidate's next score is ``after``, by its trial."""
    grown: dict[int, Record] = {}
    for _ in range(count):
        chosen = promote(rung, grown, BOTH, tiers=tiers, seed=0)
        if chosen is None:
            break
        score = after[chosen.trial]
        grown[chosen.trial] = record(1000 + chosen.trial, chosen.macs, score, chosen.trial)
    return list(grown)


def test_everyone_goes_up_once_where_there_is_room_for_all() -> None:
    rung = [record(i, 10**6 * (i + 1), 0.5 + 0.1 * i) for i in range(4)]
    order = climb(rung, 9, {i: 0.7 + 0.05 * i for i in range(4)})
    assert sorted(order) == [0, 1, 2, 3]


def test_promoted_candidates_cover_the_front() -> None:
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1e5, 1e7, 40)
    front = {i: record(i, int(m), 0.3 + 0.1 * np.log10(m / 1e5)) for i, m in enumerate(sizes)}
    behind = {
        100 + i: record(100 + i, int(m), 0.3 + 0.1 * np.log10(m / 1e5) - rng.uniform(0.15, 0.3))
        for i, m in enumerate(sizes)
    }
    everyone = [*front.values(), *behind.values()]
    order = climb(everyone, 6, {r.trial: r.cross_test + 0.05 for r in everyone})
    assert all(trial in front for trial in order)  # what is far behind stays behind
    places = sorted(np.log10(front[trial].macs) for trial in order)
    assert max(np.diff([5, *places, 7])) < 0.8  # decades of the two that nobody covers


def test_a_dominated_candidate_has_its_chance_where_gains_are_learnt_to_differ() -> None:
    """Small candidates turn out to gain .2 and large ones nothing, as their MACs tell."""
    small = [record(i, 10**5, 0.5 + 0.001 * i) for i in range(6)]
    large = [record(10 + i, 10**7, 0.60 + 0.001 * i) for i in range(6)]
    grown = {r.trial: record(100 + r.trial, r.macs, r.cross_test + 0.2) for r in small[:2]}
    grown |= {r.trial: record(100 + r.trial, r.macs, r.cross_test) for r in large[:2]}
    middle = record(20, 2 * 10**5, 0.5)  # dominated by a small one now
    chosen = promote([*small[:2], *large[:2], middle, record(21, 10**7, 0.5)], grown, BOTH, seed=0)
    assert chosen == middle


def test_each_tier_gets_the_candidate_just_below_it() -> None:
    """Along a front that rises evenly, the best within a budget is the largest one within it."""
    sizes = np.geomspace(1e5, 1e7, 41)
    rung = [record(i, int(m), 0.3 + 0.15 * np.log10(m / 1e5)) for i, m in enumerate(sizes)]
    tiers = (10**7, 3 * 10**6, 5 * 10**5)
    order = climb(rung, 4, {r.trial: r.cross_test + 0.05 for r in rung}, tiers)
    wanted = {max(r.trial for r in rung if r.macs <= tier) for tier in tiers}
    assert wanted <= set(order)


def test_what_is_above_all_tiers_stays_where_it_is() -> None:
    rung = [record(i, 10**6 * (i + 1), 0.5 + 0.1 * i) for i in range(4)]
    assert sorted(climb(rung, 4, dict.fromkeys(range(4), 0.9), tiers=(2 * 10**6,))) == [0, 1]
    assert climb(rung, 4, {}, tiers=(10**5,)) == []


def test_a_tier_goes_on_as_long_as_it_promises_more() -> None:
    """One candidate disappoints; another of the same tier comes next, not one of a tier served."""
    low, high = record(0, 10**5, 0.5), record(1, 10**7, 0.7)
    spare = record(2, 9 * 10**6, 0.69)
    grown = {0: record(100, 10**5, 0.62), 1: record(101, 10**7, 0.6)}
    more = [record(3, 9 * 10**4, 0.3), record(4, 8 * 10**4, 0.31)]
    chosen = promote([low, high, spare, *more], grown, BOTH, tiers=(10**5, 10**7), seed=0)
    assert chosen == spare


def test_candidates_that_are_trained_at_the_same_time_are_different_and_spread() -> None:
    sizes = np.geomspace(1e5, 1e7, 30)
    rung = [record(i, int(m), 0.3 + 0.15 * np.log10(m / 1e5)) for i, m in enumerate(sizes)]
    together = promote_several(rung, {}, BOTH, count=4, seed=0)
    assert len({r.trial for r in together}) == 4
    places = sorted(np.log10([r.macs for r in together]))
    assert min(np.diff(places)) > 0.2  # decades; no two look-alikes
    assert together[0] == promote(rung, {}, BOTH, seed=0)
    assert promote_several(rung[:2], {}, BOTH, count=4, seed=0) == [
        *promote_several(rung[:2], {}, BOTH, count=2, seed=0)
    ]


def test_promotion_is_a_function_of_its_arguments() -> None:
    rng = np.random.default_rng(1)
    rung = [
        record(i, int(m), s) for i, (m, s) in enumerate(rng.uniform(0.1, 1, (30, 2)) * [1e6, 1])
    ]
    assert promote(rung, {}, BOTH, seed=3) == promote(rung, {}, BOTH, seed=3)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 10**8), st.floats(0, 1)), min_size=1, max_size=12))
def test_any_rung_can_be_climbed(values: list[tuple[int, float]]) -> None:
    """Equal candidates, single ones and useless ones included."""
    rung = [record(i, macs, score) for i, (macs, score) in enumerate(values)]
    order = climb(rung, len(rung) + 1, {r.trial: r.cross_test for r in rung})
    assert sorted(order) == list(range(len(rung)))


def test_more_objectives_count_each() -> None:
    """With the self-test as an objective, the best by the self-test goes up as well."""
    objectives = [OBJECTIVES["macs"], OBJECTIVES["cross_test"], OBJECTIVES["parameters"]]
    light = record(0, 10**6, 0.60)
    heavy = record(1, 10**6 + 1, 0.61)
    first = promote([light, heavy], {}, objectives, seed=0)
    assert first is not None
    grown = {first.trial: record(9, first.macs, first.cross_test, first.trial)}
    second = promote([light, heavy], grown, objectives, seed=0)
    assert {first.trial, second.trial if second else None} == {0, 1}


def test_gains_are_those_of_a_gaussian_process() -> None:
    """Mean and covariance by the textbook's formulas in numpy, with the documented prior."""
    known = [
        (Standing(0.5, 1e5, "a"), 0.2),
        (Standing(0.7, 1e6, "b"), 0.05),
        (Standing(0.8, 1e7, "a"), 0.01),
    ]
    candidates = [Standing(0.55, 2e5, "a"), Standing(0.75, 3e6, "b")]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        apart = (a[:, None] - b[None]) ** 2
        return 0.01 * np.exp(-0.5 * apart.sum(axis=2))

    def features(each: Standing) -> list[float]:
        """Another route counts about as much as a decade of MACs: 0.7² + 0.7² = 0.98."""
        return [each.score / 0.2, np.log10(each.macs), np.sqrt(0.98) * (each.route == "b")]

    seen = np.array([features(each) for each, _ in known])
    new = np.array([features(each) for each in candidates])
    inverse = np.linalg.inv(kernel(seen, seen) + 1e-4 * np.eye(3))
    mean = kernel(new, seen) @ inverse @ np.array([gain for _, gain in known])
    covariance = kernel(new, new) - kernel(new, seen) @ inverse @ kernel(seen, new)
    drawn = gains(candidates, known, draws=200_000, rng=np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=1e-3)
    np.testing.assert_allclose(np.cov(drawn.T), covariance + 1e-4 * np.eye(2), atol=1e-4)


def test_without_pairs_gains_are_the_prior() -> None:
    drawn = gains([Standing(0.5, 1e6, "a")] * 2, [], draws=50_000, rng=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(0.0, abs=2e-3)
    assert drawn.std() == pytest.approx(0.1, abs=2e-3)
    assert np.corrcoef(drawn.T)[0, 1] > 0.95  # like candidates gain alike
