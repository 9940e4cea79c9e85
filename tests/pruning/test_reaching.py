"""Targets in words, and models that meet them."""

from typing import Any

import pytest
import torch

from pruning import (
    PruningError,
    Target,
    check_reachable,
    cut,
    figure,
    kept_channels,
    parse_target,
    reach,
    stages,
)
from pruning.cutting import Rule, cutting
from searchspaces import count_macs, count_parameters

_IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("0.25x", Target("macs", 0.25, relative=True)),
        ("50M", Target("macs", 50e6)),
        ("5000", Target("macs", 5000)),
        (" 1.2g ", Target("macs", 1.2e9)),
        ("900kMACs", Target("macs", 900e3)),
        ("2Mparams", Target("parameters", 2e6)),
        ("1.5Mparameters", Target("parameters", 1.5e6)),
        ("5ms", Target("latency", 5e-3)),
        (".5ms", Target("latency", 0.5e-3)),
    ],
)
def test_targets_are_read(text: Any, target: Any) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "x", "1x", "0x", "1.5.2M", "5 s", "-3M", ".", "0M", "3q"])
def test_what_is_no_target_is_refused(text: Any) -> None:
    with pytest.raises(PruningError, match="is no target: give a share"):
        parse_target(text)


def test_targets_speak_for_themselves() -> None:
    assert str(parse_target("50M")) == "50M MACs"
    assert str(parse_target("2Mparams")) == "2M parameters"
    assert str(parse_target("5ms")) == "5 ms"


def test_a_share_is_of_the_model(uncut: Any) -> None:
    model = uncut("resnet10t")
    target = parse_target("0.5x").of(model)
    assert target == Target("macs", 0.5 * count_macs(model, 32))
    assert target.of(uncut("lcnet_050")) == target


@pytest.mark.parametrize(
    ("name", "text", "scope"),
    [
        ("resnet18", "0.3x", "isomorphic"),
        ("lcnet_050", "0.5x", "local"),
        ("lcnet_050", "0.5x", "global"),
    ],
)
def test_macs_are_reached_within_two_percent(uncut: Any, name: str, text: Any, scope: Any) -> None:
    model = uncut(name)
    before = count_macs(model, 32)
    bound = parse_target(text).of(model).value
    pruned = reach(model, parse_target(text), scope=scope)
    assert 0.98 * bound <= count_macs(pruned, 32) <= bound
    assert count_macs(model, 32) == before
    assert pruned(torch.rand(2, 3, 32, 32)).shape == (2, 16)


def test_parameters_are_reached_within_two_percent(uncut: Any) -> None:
    pruned = reach(uncut("resnet10t"), parse_target("1Mparams"))
    assert 0.98e6 <= count_parameters(pruned) <= 1e6


def test_a_latency_is_reached(uncut: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock that needs a microsecond for a thousand MACs
    monkeypatch.setattr(
        "pruning.reaching.measure_latency", lambda model, side, **_: count_macs(model, side) / 1e9
    )
    model = uncut("resnet10t")
    bound = 0.4 * figure(model, "latency")
    pruned = reach(model, Target("latency", bound))
    assert 0.98 * bound <= figure(pruned, "latency") <= bound


def test_latency_is_measured(uncut: Any) -> None:
    assert 0 < figure(uncut("lcnet_050"), "latency") < 10


def test_an_unreachable_target_names_the_lowest_figure(uncut: Any) -> None:
    model = uncut("lcnet_050")
    with pytest.raises(PruningError, match=r"of 1k MACs cannot be reached: the lowest .* is"):
        check_reachable(model, parse_target("1k"))
    with pytest.raises(PruningError) as caught:
        reach(model, parse_target("1kparams"))
    lowest = count_parameters(cut(model, 0.999))
    assert f"{lowest / 1e3:.3g}k parameters" in str(caught.value)


def test_a_model_below_the_target_is_refused(uncut: Any) -> None:
    with pytest.raises(PruningError, match="not above the target of 50G MACs: nothing has to be"):
        reach(uncut("lcnet_050"), parse_target("50G"))


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_a_loss_is_differentiated_once_and_rates_alike(
    uncut: Any, criterion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = uncut("resnet10t")
    calls, tried = [], []
    images = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def losses(candidate: Any) -> Any:
        for batch in images:
            calls.append(None)
            yield candidate(batch).square().sum(1).sub(candidate(batch)[:, 0]).mean()

    def noted(start: Any, rule: Any) -> Any:
        cut_by = cutting(start, rule)

        def cut_and_note(ratios: Any) -> Any:
            tried.append((ratios, {**vars(rule), "batch_loss": losses}))
            return cut_by(ratios)

        return cut_and_note

    monkeypatch.setattr("pruning.reaching.cutting", noted)
    pruned = reach(model, parse_target("0.5x"), criterion=criterion, batch_loss=losses)
    widths = {n: p.shape for n, p in pruned.named_parameters()}
    assert 0.98 <= count_macs(pruned, 32) / (0.5 * count_macs(model, 32)) <= 1
    first_search = len(calls)
    assert first_search in (2, 4)  # once for the model, once more if it was trimmed
    if first_search == 2:
        for ratios, options in reversed(tried):
            same = cut(model, ratios, **options)
            if {n: p.shape for n, p in same.named_parameters()} == widths:
                pairs = zip(same.parameters(), pruned.parameters(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)
                return
        raise AssertionError("no cut that was tried is as wide as the result")


@pytest.mark.parametrize(
    "rule",
    [
        Rule(scope="global"),
        Rule("random", seed=3),
        Rule("lamp", round_to=4),
        Rule(
            "fisher", "isomorphic", "macs", batch_loss=lambda model: model(_IMAGES).square().sum()
        ),
    ],
)
def test_one_cut_of_many_is_as_if_it_were_alone(uncut: Any, rule: Any) -> None:
    model = uncut("resnet10t")
    cut_by = cutting(model, rule)
    for ratio in (0.9, 0.5, 0.25):
        ratios = dict.fromkeys(stages(model), ratio)
        together, alone = cut_by(ratios), cut(model, ratios, **vars(rule))
        assert kept_channels(together) == kept_channels(alone)
        pairs = zip(together.state_dict().items(), alone.state_dict().items(), strict=True)
        assert all(a == b and torch.equal(one, other) for (a, one), (b, other) in pairs)
        assert torch.equal(together(_IMAGES), alone(_IMAGES))
