"""Which subnetworks are drawn: how often, of how many MACs, and from what is open."""

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nas.alignment.subnetworks import SubnetworkDraws
from searchspaces import Architecture, MBConvSpace, parameters

DIMENSION = 16


class Odd:
    """A user's space with names and values of its own; only what drawing needs."""

    name = "odd"
    axes: dict[str, BaseDistribution] = {  # noqa: RUF012
        "resolution": IntDistribution(16, 48, step=16),
        "gate": CategoricalDistribution(["none", "plain", "full"]),
        "twice": CategoricalDistribution([False, True]),
        "thickness": IntDistribution(1, 5),
    }

    def distributions(self) -> dict[str, BaseDistribution]:
        return self.axes

    def sample(self, rng: random.Random) -> Architecture:
        return Architecture(self.name, parameters.sample(rng, self.axes))

    def largest(self) -> Architecture:
        return self.made(48, "full", True, 5)

    def smallest(self) -> Architecture:
        return self.made(16, "none", False, 1)

    def made(self, *values: Any) -> Architecture:
        return Architecture(self.name, dict(zip(self.axes, values, strict=True)))

    def macs(self, architecture: Architecture, dimension: int) -> int:
        side, gate, twice, thickness = (architecture.params[name] for name in self.axes)
        gates = {"none": 0, "plain": 1, "full": 40}
        return side**2 * (50 + gates[gate] + thickness**3) * (1 + twice) + dimension


def unasked(architecture: Architecture) -> float:
    raise AssertionError("only attentive sampling looks at losses")


def drawn(
    draws: SubnetworkDraws,
    steps: int,
    count: int,
    *,
    progress: float = 1.0,
    loss: Callable[[Architecture], float] = unasked,
) -> list[Architecture]:
    return [
        architecture
        for step in range(steps)
        for architecture in draws.draw(step, count, progress=progress, loss=loss)
    ]


def places(draws: SubnetworkDraws, architectures: list[Architecture]) -> np.ndarray:
    """Sorted places between the smallest (0) and the largest (1) in log-MACs."""
    largest, smallest, *rest = (
        math.log(draws.space.macs(each, DIMENSION)) for each in [*draws.ends(1.0), *architectures]
    )
    return (np.sort(rest) - smallest) / (largest - smallest)


def unevenness(values: np.ndarray) -> float:
    """Largest distance between the share of draws below a place and the place (Kolmogorov)."""
    return float(np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max())


@pytest.fixture(params=[MBConvSpace, Odd])
def space(request: pytest.FixtureRequest) -> Any:
    return request.param()


def draws(space: Any, **options: Any) -> SubnetworkDraws:
    return SubnetworkDraws(space, DIMENSION, 0, **options)


def test_uniform_draws_are_those_of_the_space(space: Any) -> None:
    for step in range(5):
        rng = random.Random(f"0 {step}")
        before = [space.sample(rng) for _ in range(3)]
        assert draws(space).draw(step, 3, progress=0.0, loss=unasked) == before


def test_fair_draws_show_every_value_equally_often(space: Any) -> None:
    count = 4
    steps = 15  # 60 draws: a multiple of 2, 3, 4 and 5 values
    found = drawn(draws(space, sampling="fair"), steps, count)
    for name, distribution in space.distributions().items():
        values = parameters.grid(name, distribution)
        shown = [architecture.params[name] for architecture in found]
        assert Counter(shown) == dict.fromkeys(values, steps * count // len(values))
        blocks = [shown[i : i + len(values)] for i in range(0, len(shown), len(values))]
        assert all(set(block) == set(values) for block in blocks)
        assert len(values) == 1 or len({tuple(block) for block in blocks}) > 1  # in no fixed order


def test_fair_draws_combine_values_freely() -> None:
    found = drawn(draws(Odd(), sampling="fair"), 90, 2)
    pairs = {(each.params["gate"], each.params["resolution"]) for each in found}
    assert len(pairs) == 9


def test_macs_are_drawn_log_uniformly() -> None:
    space = MBConvSpace()
    steps = 150
    even = drawn(draws(space, sampling="macs"), steps, 2)
    plain = drawn(draws(space), steps, 2)
    assert unevenness(places(draws(space), even)) < 0.08  # of 300 truly uniform draws, 5% lie above
    assert unevenness(places(draws(space), plain)) > 0.15
    assert len(set(even)) > 0.9 * len(even)
    for name, values in draws(space).choices(1.0).items():
        assert {architecture.params[name] for architecture in even} == set(values)


def test_attentive_draws_take_the_lowest_loss_of_a_macs_figure() -> None:
    space = MBConvSpace()
    asked: list[tuple[Architecture, float]] = []
    losses = random.Random(1)

    def loss(architecture: Architecture) -> float:
        asked.append((architecture, losses.random()))
        return asked[-1][1]

    steps = 40
    chosen = drawn(draws(space, sampling="attentive"), steps, 1, loss=loss)
    groups = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    assert chosen == [min(group, key=lambda pair: pair[1])[0] for group in groups]
    spans = [np.ptp([math.log(space.macs(each, DIMENSION)) for each, _ in g]) for g in groups]
    whole = math.log(space.macs(space.largest(), DIMENSION) / space.macs(space.smallest(), 16))
    assert np.median(spans) < 0.1 * whole


@pytest.mark.parametrize("sampling", ["uniform", "fair", "macs", "attentive"])
def test_a_step_draws_the_same_whatever_came_before(space: Any, sampling: str) -> None:
    one = draws(space, sampling=sampling, progressive=0.5)
    other = draws(space, sampling=sampling, progressive=0.5)
    options: dict[str, Any] = {"progress": 0.3, "loss": lambda architecture: 0.0}
    for step in range(6):
        one.draw(step, 2, **options)
    assert one.draw(6, 2, **options) == other.draw(6, 2, **options)
    seeded = SubnetworkDraws(space, DIMENSION, 1, sampling=sampling, progressive=0.5)  # type: ignore[arg-type]
    assert drawn(seeded, 9, 2, progress=1.0, loss=lambda a: 0.0) != drawn(
        one, 9, 2, progress=1.0, loss=lambda a: 0.0
    )


@settings(max_examples=40)
@given(
    kind=st.sampled_from([MBConvSpace, Odd]),
    share=st.floats(0.05, 0.95),
    times=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_choices_open_and_never_close(kind: Any, share: float, times: tuple[float, float]) -> None:
    progressive = draws(kind(), progressive=share)
    earlier, later = (progressive.choices(time) for time in sorted(times))
    for name in earlier:
        assert later[name][: len(earlier[name])] == earlier[name]


def test_a_progressive_training_goes_from_the_largest_to_all(space: Any) -> None:
    progressive = draws(space, progressive=0.5)
    largest, smallest = space.largest(), space.smallest()
    first, last = progressive.choices(0.0), progressive.choices(0.5)
    grids = {n: parameters.grid(n, each) for n, each in space.distributions().items()}
    assert {n: values for n, values in first.items() if n != "resolution"} == {
        n: (value,) for n, value in largest.params.items() if n != "resolution"
    }
    assert {n: set(values) for n, values in last.items()} == {n: set(v) for n, v in grids.items()}
    assert set(first["resolution"]) == set(grids["resolution"])
    assert progressive.ends(0.5) == (largest, smallest)
    most, least = progressive.ends(0.0)
    assert most == largest
    assert dict(least.params) == {**largest.params, "resolution": min(grids["resolution"])}


def test_what_costs_little_opens_first() -> None:
    progressive = draws(Odd(), progressive=0.8)
    seen = [progressive.choices(time / 100) for time in range(81)]
    order = []
    for earlier, later in pairwise(seen):
        order += [later[name][-1] for name in later if later[name] != earlier[name]]
    # The largest keeps of its 215 MACs a pixel: plain 176, none 175, 4 154, 3 117, False 107.5,
    # 2 98, 1 91.
    assert order == ["plain", "none", 4, 3, False, 2, 1]


@pytest.mark.parametrize("sampling", ["uniform", "fair", "macs", "attentive"])
@pytest.mark.parametrize("progress", [0.0, 0.2, 0.4])
def test_only_what_is_open_is_drawn(space: Any, sampling: str, progress: float) -> None:
    progressive = draws(space, sampling=sampling, progressive=0.5)
    found = drawn(progressive, 20, 2, progress=progress, loss=lambda architecture: 0.0)
    for architecture in [*found, *progressive.ends(progress)]:
        for name, values in progressive.choices(progress).items():
            assert architecture.params[name] in values
