"""Every objective against an independent figure, and what bounds on costs do."""

import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fvcore.nn import ActivationCountAnalysis
from torch import nn

from nas.candidates.objectives import OBJECTIVES, Subject, bounds, weigh
from nas.config import study as config
from nas.config.study import BudgetConfig, StudyConfig
from nas.study.front import Record
from nas.study.search import search
from pruning import PrunedSpace
from searchspaces import Architecture, MBConvSpace, QueryModel

COSTS = [name for name, each in OBJECTIVES.items() if each.cost is not None]
CPU = torch.device("cpu")
SPACE = MBConvSpace(
    resolutions=(16, 24),
    stages=[{"widths": [8, 16], "depths": [1, 2], "expansions": [2], "kernels": [3]}],
    head_widths=(32,),
)
OLD = {
    "route": "slices",
    "fidelity": "shared weights",
    "architecture": {"space": "mbconv", "params": {"resolution": 32}},
    "resolution": 32,
    "macs": 5,
    "parameters": 7,
    "cross_test": 0.5,
    "interval": [0.4, 0.6],
    "self_test": 0.4,
    "paragon": 0.9,
    "latency": None,
    "parent": None,
}
"""User attributes of a trial as they were before there were more costs."""


def subject(**fields: Any) -> Subject:
    return Subject(SPACE, SPACE.largest(), 12, CPU, **fields)


def int8_by_hand(model: nn.Module) -> int:
    """Sum over layers rather than parameters, by their written-out rules."""
    total = 0
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = own.pop("weight")
            total += weight.numel() + 4 * len(weight)
        total += 4 * sum(parameter.numel() for parameter in own.values())
    return total


def test_study_files_know_the_same_objectives_and_bounds() -> None:
    assert set(typing.get_args(config.Objective)) == set(OBJECTIVES)
    assert {name.partition("_")[2] for name in BudgetConfig.model_fields} == set(COSTS)
    assert all(hasattr(Record, name) or name in Record.__dataclass_fields__ for name in OBJECTIVES)


@pytest.mark.filterwarnings("ignore")
def test_every_weightless_cost_is_an_independent_figure() -> None:
    model = SPACE.build(SPACE.largest(), 12).eval()
    found = {
        name: OBJECTIVES[name].cost_of(subject())
        for name in ("macs", "parameters", "activations", "int8_bytes")
    }
    assert found == {
        "macs": SPACE.macs(SPACE.largest(), 12),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "activations": ActivationCountAnalysis(model, torch.zeros(1, 3, 24, 24)).total(),
        "int8_bytes": int8_by_hand(model),
    }


def test_latencies_are_medians_of_whole_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def forward_seconds(model: nn.Module, shape: tuple[int, ...], runtime: str) -> list[float]:
        asked.append((type(model), shape, runtime))
        return [0.5, 0.1, 0.2]

    monkeypatch.setattr("nas.candidates.objectives.forward_seconds", forward_seconds)
    monkeypatch.setattr("searchspaces.timing.time_passes", lambda *_, **__: [0.4, 0.9, 0.3])
    assert OBJECTIVES["onnx_latency"].cost_of(subject()) == 0.2
    assert asked == [(QueryModel, (3, 24, 24), "onnxruntime")]
    assert OBJECTIVES["latency"].cost_of(subject()) == 0.4


def test_the_rewards_of_cmp_nas() -> None:
    record = Record.of_trial(optuna.trial.create_trial(values=[0.0], user_attrs=OLD))
    rewards = [OBJECTIVES[name] for name in ("self_test", "cross_test", "product")]
    assert [each.of(record) for each in rewards] == [0.4, 0.5, 0.2]
    assert {each.direction for each in rewards} == {"maximize"}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("macs", 9_470_000, "9.47M"),
        ("parameters", 123_456, "123k"),
        ("int8_bytes", 310_000, "310kB"),
        ("onnx_latency", 0.00123, "1.23 ms"),
        ("product", 0.51234, "0.5123"),
    ],
)
def test_values_for_people(name: str, value: float, text: str) -> None:
    assert OBJECTIVES[name].text(value) == text


def test_a_budget_is_read_in_its_units() -> None:
    budget = BudgetConfig.model_validate(
        {
            "min_macs": "1k",
            "max_parameters": "2M",
            "max_int8_bytes": "900kB",
            "max_latency": "5 ms",
            "max_onnx_latency": 0.25,
        }
    )
    assert {bound.name: bound.limit for bound in bounds(budget)} == {
        "min_macs": 1000,
        "max_parameters": 2_000_000,
        "max_int8_bytes": 900_000,
        "max_latency": pytest.approx(5e-3),
        "max_onnx_latency": pytest.approx(0.25e-3),
    }
    assert BudgetConfig.model_validate(budget.model_dump(mode="json")) == budget


def test_excess_is_a_share_of_the_bound() -> None:
    budget = BudgetConfig(min_macs=4 * SPACE.macs(SPACE.largest(), 12), max_parameters=10)
    costs, excess = weigh(subject(), budget)
    assert excess["min_macs"] == pytest.approx(0.75)
    assert excess["max_parameters"] == pytest.approx(costs["parameters"] / 10 - 1)
    assert weigh(subject(), BudgetConfig()) == ({"macs": SPACE.macs(SPACE.largest(), 12)}, {})


def test_no_clock_is_read_for_what_is_outside_already(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def clock(*_: Any, **__: Any) -> list[float]:
        read.append("once")
        return [0.010]

    monkeypatch.setattr("nas.candidates.objectives.forward_seconds", clock)
    outside = BudgetConfig(max_onnx_latency=5, max_parameters=10)
    costs, excess = weigh(subject(), outside)
    assert excess["max_onnx_latency"] == 0  # neither within nor outside; nothing was measured
    assert "onnx_latency" not in costs
    assert not read
    costs, excess = weigh(subject(), replace_limit(outside, 10**9))
    assert costs["onnx_latency"] == 0.010
    assert excess["max_onnx_latency"] == pytest.approx(1)
    assert read == ["once"]


def replace_limit(budget: BudgetConfig, parameters: int) -> BudgetConfig:
    return budget.model_copy(update={"max_parameters": parameters})


def test_a_network_is_built_only_when_a_cost_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(MBConvSpace, "build", build)
    weigh(subject(), BudgetConfig(max_macs=1))
    given = nn.Linear(3, 4)
    assert OBJECTIVES["parameters"].cost_of(subject(given=given)) == 16
    with pytest.raises(AssertionError, match="built"):
        weigh(subject(), BudgetConfig(max_int8_bytes=1))


def test_costs_of_a_cut_backbone_fetch_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("searchspaces.query_model._download", download)
    space = PrunedSpace("resnet10t", resolutions=(32,), max_ratio=0.5, step=0.5)
    half = Architecture(
        "pruned",
        {
            name: 0.5 if name.startswith("ratio") else each.choices[0]  # type: ignore[attr-defined]
            for name, each in space.distributions().items()
        },
    )
    state = torch.random.get_rng_state()
    cut = Subject(space, half, 8, CPU)
    expected = replace(space, pretrained=False).build(half, 8)
    torch.random.set_rng_state(state)
    assert OBJECTIVES["int8_bytes"].cost_of(cut) == int8_by_hand(expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_records_of_older_studies_are_read() -> None:
    record = Record.of_trial(optuna.trial.create_trial(values=[5.0, 0.5], user_attrs=OLD))
    assert (record.macs, record.interval, record.int8_bytes) == (5, (0.4, 0.6), None)


def study(content: dict[str, Any], **fields: Any) -> StudyConfig:
    slices = {"slices": content["spaces"]["slices"]}
    return StudyConfig.model_validate({**content, "spaces": slices, **fields})


def test_what_a_study_asks_for_is_in_its_records(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    config = study(
        tiny_study,
        trials=2,
        objectives=["activations", "int8_bytes", "onnx_latency", "product"],
        finish={"models": 1, "training": tiny_study["finish"]["training"]},
    )
    run = search(config, tmp_path / "run")
    assert {r.parent is None for r in run.records()} == {True, False}
    complete = run.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    for record, trial in zip(run.records(), complete, strict=True):
        model = run.model(record)
        assert record.int8_bytes == int8_by_hand(model)
        assert record.product == record.self_test * record.cross_test
        assert record.latency is None
        assert record.onnx_latency is not None
        assert trial.values == [
            record.activations,
            record.int8_bytes,
            record.onnx_latency,
            record.product,
        ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objectives": ["macs", "macs"]}, "an objective is named twice"),
        ({"objectives": ["macs", "parameters", "latency", "product", "self_test"]}, "at most 4"),
        ({"objectives": ["table_latency", "cross_test"]}, "needs a file that `querynas latency"),
        ({"budget": {"max_table_latency": "2ms"}}, "needs a file that `querynas latency"),
        ({"budget": {"max_latency": "5 parsecs"}}, "max_latency"),
        ({"budget": {"max_parameters": 0}}, "max_parameters"),
    ],
)
def test_wrong_objectives_are_named(
    tiny_study: dict[str, Any], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        study(tiny_study, **fields)
