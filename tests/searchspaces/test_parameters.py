"""What follows from Optuna distributions alone."""

import random
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from searchspaces import Architecture, SearchSpaceError, parameters

DISTRIBUTIONS = {
    "side": IntDistribution(32, 48, step=8),
    "ratio": FloatDistribution(0.0, 0.3, step=0.1),
    "kind": CategoricalDistribution(("a", "b", "c")),
}


def test_neighbours_step_once_along_numbers_and_anywhere_along_categories() -> None:
    here = {"side": 40, "ratio": 0.0, "kind": "b"}
    changes = [
        (name, value)
        for other in parameters.neighbours(here, DISTRIBUTIONS)
        for name, value in other.items()
        if value != here[name]
    ]
    assert changes == [("side", 32), ("side", 48), ("ratio", 0.1), ("kind", "a"), ("kind", "c")]


def test_size_counts_the_grid() -> None:
    assert parameters.size(DISTRIBUTIONS) == 3 * 4 * 3


def test_samples_are_points_of_the_space_and_reach_all_values() -> None:
    rng = random.Random(0)
    samples = [parameters.sample(rng, DISTRIBUTIONS) for _ in range(200)]
    for params in samples:
        parameters.check(Architecture("s", params), "s", DISTRIBUTIONS)
    for name, distribution in DISTRIBUTIONS.items():
        assert {params[name] for params in samples} == set(parameters.grid(name, distribution))


def test_round_off_does_not_put_a_value_outside() -> None:
    architecture = Architecture("s", {"side": 32, "ratio": 0.1 + 0.2, "kind": "a"})
    parameters.check(architecture, "s", DISTRIBUTIONS)
    near = parameters.neighbours(architecture.params, DISTRIBUTIONS)
    assert sorted({round(each["ratio"], 9) for each in near}) == [0.2, 0.3]


@pytest.mark.parametrize(
    ("space", "changes", "words"),
    [
        ("t", {}, "space 't'"),
        ("s", {"side": 41}, r"'side'.*is 41.*\(32, 40, 48\)"),
        ("s", {"sides": 40}, "no parameter 'sides': did you mean 'side'"),
        ("s", {"kind": None}, "lacks the parameter 'kind'"),
    ],
)
def test_points_outside_are_refused_by_name(space: Any, changes: Any, words: str) -> None:
    params = {"side": 40, "ratio": 0.1, "kind": "a", **changes}
    architecture = Architecture(
        space, {name: value for name, value in params.items() if value is not None}
    )
    with pytest.raises(SearchSpaceError, match=words):
        parameters.check(architecture, "s", DISTRIBUTIONS)


def test_a_continuous_parameter_has_no_grid() -> None:
    with pytest.raises(SearchSpaceError, match="'lr' is continuous"):
        parameters.grid("lr", FloatDistribution(0.0, 1.0))
