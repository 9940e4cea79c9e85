"""Several spaces as one: parameters of the chosen space alone, and all else by that space."""

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_spaces import assert_made_again

import searchspaces.shufflenet
import searchspaces.zoo  # noqa: F401
from pruning import load_model, save_model
from searchspaces import (
    Architecture,
    SearchSpace,
    SearchSpaceError,
    count_macs,
    create_space,
)
from searchspaces.union import UnionSpace

MBCONV = {
    "space": "mbconv",
    "resolutions": [16, 24],
    "stem_widths": [8],
    "stages": [{"widths": [8, 16], "depths": [1, 2]}],
    "head_widths": [16, 32],
}
SHUFFLENET = {
    "space": "shufflenet",
    "resolutions": [24, 32],
    "widths": [32],
    "depths": [2],
    "ratios": [1],
    "head_width": 16,
}
TIMM = {
    "space": "timm",
    "backbones": ["test_resnet", "test_vit"],
    "resolutions": [32, 45],
    "pretrained": False,
}
UNION = UnionSpace({"small": MBCONV, "shuffled": SHUFFLENET, "known": TIMM})
NESTED = UnionSpace(
    {"one": {"space": "union", "spaces": {"a": MBCONV, "b": TIMM}}, "two": SHUFFLENET}
)
seeds = st.integers(0, 10**6)


def test_it_has_the_parameters_of_all_with_their_labels() -> None:
    distributions = UNION.distributions()
    assert distributions["space"].choices == ("small", "shuffled", "known")
    for label, space in UNION.members.items():
        own = {k: v for k, v in distributions.items() if k.startswith(f"{label}.")}
        assert own == {f"{label}.{name}": each for name, each in space.distributions().items()}
    assert len(distributions) == 1 + sum(len(m.distributions()) for m in UNION.members.values())
    assert UNION.size() == sum(space.size() for space in UNION.members.values())
    assert isinstance(UNION, SearchSpace)


@settings(max_examples=12)
@given(seeds, st.sampled_from([UNION, NESTED]))
def test_a_network_is_built_and_counted_by_its_own_space(seed: int, space: Any) -> None:
    architecture = space.sample(random.Random(seed))
    label = architecture.params["space"]
    assert {name.partition(".")[0] for name in architecture.params} == {"space", label}
    model = space.build(architecture, 8)
    assert space.macs(architecture, 8) == count_macs(model, model.resolution)
    (resolution,) = (v for name, v in architecture.params.items() if name.endswith(".resolution"))
    assert model.resolution == resolution


def test_samples_are_spread_over_the_spaces() -> None:
    rng = random.Random(0)
    labels = [UNION.sample(rng).params["space"] for _ in range(300)]
    assert all(70 < labels.count(label) < 130 for label in UNION.members)


@settings(max_examples=10)
@given(seeds)
def test_neighbours_stay_within_the_space_or_jump_into_each_other_one(seed: int) -> None:
    architecture = UNION.sample(random.Random(seed))
    label, inner = UNION.split(architecture)
    around = list(UNION.neighbours(architecture))
    assert around == list(UNION.neighbours(architecture))
    assert len(set(around)) == len(around)
    assert architecture not in around
    within = [UNION.split(each)[1] for each in around if each.params["space"] == label]
    assert within == list(UNION.members[label].neighbours(inner))
    elsewhere = [each.params["space"] for each in around if each.params["space"] != label]
    assert sorted(elsewhere) == sorted(set(UNION.members) - {label})
    assert all(UNION.macs(each, 8) > 0 for each in around)


@pytest.mark.parametrize("space", [UNION, NESTED], ids=["union", "nested"])
@pytest.mark.parametrize(
    "sampler",
    [
        lambda: optuna.samplers.TPESampler(
            seed=0,
            multivariate=True,
            group=True,
            n_startup_trials=8,
            warn_independent_sampling=False,
        ),
        lambda: optuna.samplers.NSGAIISampler(seed=0, population_size=8),
    ],
    ids=["tpe", "nsga2"],
)
def test_no_sampler_proposes_what_cannot_be_built(space: Any, sampler: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler())
    for seed in range(3):  # as a study's first proposals, from anywhere in the space
        study.enqueue_trial(dict(space.sample(random.Random(seed)).params))
    proposed = []

    def objective(trial: Any) -> Any:
        proposed.append(space.suggest(trial))
        return space.macs(proposed[-1], 8), float(len(proposed[-1].params))

    study.optimize(objective, n_trials=40)
    assert proposed[:3] == [space.sample(random.Random(seed)) for seed in range(3)]
    assert {architecture.params["space"] for architecture in proposed} == set(space.members)
    for trial, architecture in zip(study.trials, proposed, strict=True):
        assert trial.params == architecture.params  # nothing of the other spaces was asked for
        assert trial.distributions.items() <= space.distributions().items()


def test_a_fixed_trial_chooses_an_architecture() -> None:
    for seed in range(6):
        architecture = NESTED.sample(random.Random(seed))
        assert NESTED.suggest(optuna.trial.FixedTrial(dict(architecture.params))) == architecture


@pytest.mark.parametrize("label", ["small", "shuffled", "known"])
def test_models_are_made_again_from_their_origin_and_from_their_file(
    tmp_path: Path, label: Any
) -> None:
    inner = UNION.members[label].sample(random.Random(2))
    params = {f"{label}.{name}": value for name, value in inner.params.items()}
    model = UNION.build(Architecture("union", {"space": label, **params}), 8).eval()
    assert_made_again(model, tmp_path)


def test_a_pruned_backbone_can_be_one_of_the_spaces(tmp_path: Path) -> None:
    pruned = {"space": "pruned", "backbone": "resnet10t", "resolutions": [32], "pretrained": False}
    space = create_space("union", spaces={"cuts": pruned, "new": MBCONV})
    inner = space.members["cuts"].sample(random.Random(0))
    params = {f"cuts.{name}": value for name, value in inner.params.items()}
    model = space.build(Architecture("union", {"space": "cuts", **params}), 8).eval()
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)


@pytest.mark.parametrize(("space", "label"), [(UNION, "known"), (NESTED, "b")])
def test_it_has_no_blocks_where_one_of_its_spaces_has_none(space: Any, label: Any) -> None:
    words = f"'{label}' of the space 'union' is a space 'timm', which does not say which blocks"
    with pytest.raises(SearchSpaceError, match=words):
        space.every_block(8)
    architecture = next(a for a in map(space.sample, map(random.Random, range(99))) if is_known(a))
    with pytest.raises(SearchSpaceError, match=words):
        space.blocks(architecture, 8)


def is_known(architecture: Any) -> Any:
    return "known" in architecture.params.values() or "b" in architecture.params.values()


@pytest.mark.parametrize(
    ("spaces", "words"),
    [
        ({}, "'spaces' of the space 'union' is {}: give at least one"),
        (["mbconv"], "give at least one search space by a label"),
        ({"a.b": MBCONV}, "'a.b' of the space 'union' is no label: .* without dots"),
        ({3: MBCONV}, "'3' of the space 'union' is no label"),
        ({"a": "mbconv"}, "'a' of the space 'union' is 'mbconv': give .* as 'space'"),
        ({"a": {"resolutions": [32]}}, "'a' of the space 'union' is .* as 'space'"),
        ({"a": {"space": "mbcov"}}, "'a' of .* no search space 'mbcov': did you mean 'mbconv'"),
        ({"a": {"space": "mbconv", "kernel": 3}}, "'a' of .* no option 'kernel'"),
        ({"a": {"space": "mbconv", "stages": []}}, "'a' of .* 'stages'"),
        ({"a": {"space": "pruned", "backbone": "resnet10t", "step": 2}}, "'a' of .* step 2"),
    ],
)
def test_wrong_options_are_named(spaces: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        create_space("union", spaces=spaces)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": None}, "lacks the parameter 'space'"),
        ({"space": "large"}, "'space' of the space 'union' is 'large': give one of"),
        ({"small.resolution": None}, "'mbconv' lacks the parameter 'resolution'"),
        ({"small.resolution": 17}, "'resolution' of the space 'mbconv' is 17"),
        ({"known.head": "norm"}, "chose 'small', but has the parameter 'known.head'"),
        ({"resolution": 16}, "chose 'small', but has the parameter 'resolution'"),
    ],
)
def test_architectures_outside_are_refused(changes: Any, words: str) -> None:
    inner = UNION.members["small"].sample(random.Random(0))
    params = {"space": "small", **{f"small.{n}": v for n, v in inner.params.items()}, **changes}
    architecture = Architecture("union", {n: v for n, v in params.items() if v is not None})
    with pytest.raises(SearchSpaceError, match=words):
        UNION.macs(architecture, 8)


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="'mbconv' was given to the space 'union'"):
        UNION.macs(Architecture("mbconv", {"space": "small"}), 8)
