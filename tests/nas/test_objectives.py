"""Every objective against an independent figure, and what bounds on costs do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fvcore.nn import ActivationCountAnalysis
from torch import nn

from nas.candidates.proposal import Proposal
from nas.candidates.routes import create_route
from nas.config.objectives import COSTS, OBJECTIVES, BudgetConfig, bounds
from nas.config.study import PrunedConfig, StandaloneConfig, StudyConfig
from nas.study.front import Record
from nas.study.trials import search
from pruning import PrunedSpace
from searchspaces import Architecture, MBConvSpace, QueryModel

OPTIONS: dict[str, Any] = {
    "resolutions": [16, 24],
    "stages": [{"widths": [8, 16], "depths": [1, 2], "expansions": [2], "kernels": [3]}],
    "head_widths": [32],
}
SPACE = MBConvSpace(**OPTIONS)
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


def largest() -> Proposal:
    config = StandaloneConfig(route="standalone", space="mbconv", options=OPTIONS)
    return Proposal(create_route("plain", config, 12), SPACE.largest())


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


def test_one_entry_makes_a_cost_an_objective_and_a_bound(tiny_study: dict[str, Any]) -> None:
    for name in OBJECTIVES:
        config = study(tiny_study, objectives=[name], latency_table="a file")
        assert config.objectives == (name,)
    assert set(BudgetConfig.model_fields) == {"min_macs", *(f"max_{c.name}" for c in COSTS)}
    for cost in COSTS:
        (bound,) = bounds(BudgetConfig.model_validate({f"max_{cost.name}": 5}))
        assert bound.objective == cost


@pytest.mark.filterwarnings("ignore")
def test_every_weightless_cost_is_an_independent_figure() -> None:
    model = SPACE.build(SPACE.largest(), 12).eval()
    found = {
        name: largest().cost(OBJECTIVES[name])
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

    monkeypatch.setattr("nas.candidates.proposal.forward_seconds", forward_seconds)
    monkeypatch.setattr("searchspaces.timing.time_passes", lambda *_, **__: [0.4, 0.9, 0.3])
    assert largest().cost(OBJECTIVES["onnx_latency"]) == 0.2
    assert asked == [(QueryModel, (3, 24, 24), "onnxruntime")]
    assert largest().cost(OBJECTIVES["latency"]) == 0.4


def test_the_rewards_of_cmp_nas() -> None:
    record = Record.of_trial(optuna.trial.create_trial(values=[0.0], user_attrs=OLD))
    rewards = [OBJECTIVES[name] for name in ("self_test", "cross_test", "product")]
    assert [record.value(each) for each in rewards] == [0.4, 0.5, 0.2]
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
    least = 4 * SPACE.macs(SPACE.largest(), 12)
    budget = BudgetConfig.model_validate({"min_macs": least, "max_parameters": 10})
    proposal = largest()
    excess = proposal.excess(budget)
    assert excess["min_macs"] == pytest.approx(0.75)
    assert excess["max_parameters"] == pytest.approx(proposal.found["parameters"] / 10 - 1)
    assert not proposal.within(budget)


def test_macs_are_found_without_a_budget() -> None:
    proposal = largest()
    assert proposal.excess(BudgetConfig()) == {}
    assert proposal.within(BudgetConfig())
    assert proposal.found == {"macs": SPACE.macs(SPACE.largest(), 12)}


def test_no_clock_is_read_for_what_is_outside_already(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def clock(*_: Any, **__: Any) -> list[float]:
        read.append("once")
        return [0.010]

    monkeypatch.setattr("nas.candidates.proposal.forward_seconds", clock)
    outside = BudgetConfig.model_validate({"max_onnx_latency": 5, "max_parameters": 10})
    proposal = largest()
    excess = proposal.excess(outside)
    assert excess["max_onnx_latency"] == 0  # neither within nor outside; nothing was measured
    assert "onnx_latency" not in proposal.found
    assert not read
    within = outside.model_copy(update={"max_parameters": 10**9})
    for _ in range(2):
        excess = proposal.excess(within)
    assert proposal.found["onnx_latency"] == 0.010
    assert excess["max_onnx_latency"] == pytest.approx(1)
    assert read == ["once"]


def test_a_network_is_built_only_when_a_cost_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(MBConvSpace, "build", build)
    proposal = largest()
    proposal.excess(BudgetConfig(max_macs=1))
    with pytest.raises(AssertionError, match="built"):
        proposal.excess(BudgetConfig.model_validate({"max_int8_bytes": 1}))


def test_a_network_that_is_there_is_measured_and_known_costs_stay() -> None:
    proposal = largest()
    macs = proposal.cost(OBJECTIVES["macs"])
    model = SPACE.build(SPACE.smallest(), 12)
    trained = proposal.with_network(model)
    assert trained == proposal
    assert trained.network is model
    assert trained.costs([OBJECTIVES["macs"], OBJECTIVES["parameters"]]) == {
        "macs": macs,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def test_costs_of_a_cut_backbone_fetch_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("searchspaces.query_model._download", download)
    options = {"resolutions": [32], "max_ratio": 0.5, "step": 0.5, "criteria": ["magnitude"]}
    config = PrunedConfig(route="pruned", backbone="resnet10t", options=options)
    route = create_route("cuts", config, 8)
    space = route.space
    assert isinstance(space, PrunedSpace)
    half = Architecture(
        "pruned",
        {
            name: 0.5 if name.startswith("ratio") else each.choices[0]  # type: ignore[attr-defined]
            for name, each in space.distributions().items()
        },
    )
    state = torch.random.get_rng_state()
    cut = Proposal(route, half)
    expected = replace(space, pretrained=False).build(half, 8)
    torch.random.set_rng_state(state)
    assert cut.cost(OBJECTIVES["int8_bytes"]) == int8_by_hand(expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_records_of_older_studies_are_read() -> None:
    record = Record.of_trial(optuna.trial.create_trial(values=[5.0, 0.5], user_attrs=OLD))
    assert (record.macs, record.interval, record.costs) == (
        5,
        (0.4, 0.6),
        {"macs": 5, "parameters": 7},
    )


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
        assert record.costs["int8_bytes"] == int8_by_hand(model)
        assert record.product == record.self_test * record.cross_test
        assert "latency" not in record.costs
        assert trial.values == [
            *(record.costs[name] for name in ("activations", "int8_bytes", "onnx_latency")),
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
