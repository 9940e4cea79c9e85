"""What all elastic spaces share: one plan behind counting, building, slicing and copying."""

import copy
import dataclasses
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import optuna
import pytest
import tiny_spaces
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from torch import nn

from pruning import load_model, save_model
from searchspaces import (
    Architecture,
    ElasticSpace,
    MBConvSpace,
    MBConvSupernet,
    ResNetSpace,
    ResNetSupernet,
    SearchSpaceError,
    ShuffleNetSpace,
    ShuffleNetSupernet,
    Supernet,
    ViTSpace,
    ViTSupernet,
    count_macs,
    count_parameters,
    create_space,
    folded,
    rebuild,
    recalibrate,
    space_names,
)
from searchspaces.elastic import shared_part
from searchspaces.elastic.modules import ConvNorm
from searchspaces.out_of_place import out_of_place

DIMENSION = 12
KINDS: dict[str, tuple[type, type]] = {
    "mbconv": (MBConvSpace, MBConvSupernet),
    "resnet": (ResNetSpace, ResNetSupernet),
    "vit": (ViTSpace, ViTSupernet),
    "shufflenet": (ShuffleNetSpace, ShuffleNetSupernet),
}


@dataclass(frozen=True)
class Case:
    """A space with a few facts worked out by hand.

    Attributes:
        space: The space.
        features: Pooled features of its largest network.
        shapes: Of some of the parameters of its smallest network.
        example: What distinguishes a network with more kinds of layers from the smallest.
        supernet: Options of the supernet.
    """

    space: Any
    features: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    supernet: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "mbconv": Case(
        tiny_spaces.MBCONV,
        features=48,
        shapes={
            "backbone.stem.conv.weight": (8, 3, 3, 3),
            "backbone.stages.1.0.depthwise.conv.weight": (24, 1, 3, 3),
        },
    ),
    "mbconv-plain": Case(tiny_spaces.PLAIN, features=32),
    "mbconv-switched": Case(tiny_spaces.SWITCHED, features=32, supernet={"kernel_transform": True}),
    "resnet": Case(
        tiny_spaces.RESNET,
        features=32,
        shapes={
            "backbone.stages.0.0.convs.1.conv.weight": (8, 8, 3, 3),
            "backbone.stages.0.0.shortcut.conv.weight": (8, 8, 1, 1),
        },
        example={"resolution": 25},
        supernet={"kernel_transform": True},
    ),
    "resnet-fixed": Case(tiny_spaces.FIXED, features=16),
    "vit": Case(
        tiny_spaces.VIT,
        features=40,
        shapes={
            "backbone.stems.patch8.embed.weight": (16, 3 * 8 * 8, 1, 1),
            "backbone.blocks.0.attention.qkv.weight": (24, 16),
        },
        example={
            "stem": "conv",
            "resolution": 32,
            "part1_heads": 3,
            "part2_heads": 2,
            "part2_ratio": 2.3,
        },
    ),
    "vit-uniform": Case(tiny_spaces.UNIFORM, features=32),
    "shufflenet": Case(
        tiny_spaces.SHUFFLENET,
        features=40,
        shapes={"backbone.layers.1.shuffle3.main.0.conv.weight": (8, 16, 1, 1)},
        example={"layer2_kind": "shuffle7", "layer3_kind": "xception", "layer4_kind": "xception"},
    ),
}
SUPERNETS: dict[str, Any] = {
    name: tiny_spaces.eventful_supernet(case.space, DIMENSION, **case.supernet)
    for name, case in CASES.items()
}
SPACES: dict[str, Any] = {
    **{name: case.space for name, case in CASES.items()},
    **{f"{name}-default": space() for name, (space, _) in KINDS.items()},
    "mbconv-gated": MBConvSpace(se=(False, True)),
    # a convolutional stem dearer than its blocks: larger patches cost more
    "vit-dear": ViTSpace(
        resolutions=(32,), patches=(2, 32), stem_width=64, widths=(8, 32), depths=(1,), parts=1
    ),
    "shufflenet-uneven": ShuffleNetSpace(ratios=(0.3, 1.7)),
}
every_case = pytest.mark.parametrize("name", CASES)
every_kind = pytest.mark.parametrize("name", KINDS)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
seeds = st.integers(0, 10**6)


def smallest(space: Any, **changes: Any) -> Any:
    return Architecture(space.name, {**space.smallest().params, **changes})


every_network = pytest.mark.parametrize(
    ("name", "architecture"),
    [
        pytest.param(name, architecture, id=f"{name}-{which}")
        for name, case in CASES.items()
        for which, architecture in {
            "smallest": smallest(case.space),
            "example": smallest(case.space, **case.example),
            "drawn": case.space.sample(random.Random(3)),
        }.items()
        if case.example or which != "example"
    ],
)


def images_for(model: Any, count: Any) -> Any:
    return torch.rand(count, 3, model.resolution, model.resolution)


def test_no_elastic_space_is_missing() -> None:
    of_timm = {"pruned", "timm", "timm-elastic", "union"}
    assert set(space_names()) - of_timm == set(KINDS)


@every_kind
def test_a_name_gives_the_default_space(name: str) -> None:
    kind, _ = KINDS[name]
    assert create_space(name) == kind()
    assert isinstance(kind(), ElasticSpace)


@every_case
def test_the_supernet_starts_as_the_largest(name: str) -> None:
    space = CASES[name].space
    supernet = space.supernet(5)
    assert isinstance(space, ElasticSpace)
    assert isinstance(supernet, KINDS[space.name][1])
    assert isinstance(supernet, Supernet)
    assert supernet.architecture == space.largest()
    assert supernet.resolution == max(space.resolutions)
    assert supernet.dimension == 5


@every_case
@settings(max_examples=6)
@given(seed=seeds, dimension=st.sampled_from([8, 24]))
def test_the_formula_counts_what_fvcore_counts(name: str, seed: int, dimension: Any) -> None:
    space = CASES[name].space
    architecture = space.sample(random.Random(seed))
    model = space.build(architecture, dimension)
    assert space.macs(architecture, dimension) == count_macs(model, model.resolution)


@every_kind
def test_the_formula_holds_for_the_default_space(name: str) -> None:
    space = create_space(name)
    architecture = space.sample(random.Random(0))
    model = space.build(architecture, 64)
    assert space.macs(architecture, 64) == count_macs(model, model.resolution)


@every_space
def test_every_architecture_costs_between_the_smallest_and_the_largest(space: Any) -> None:
    rng = random.Random(0)
    macs = [space.macs(space.sample(rng), 64) for _ in range(300)]
    assert space.macs(space.smallest(), 64) <= min(macs)
    assert max(macs) <= space.macs(space.largest(), 64)


def values_of(distribution: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return list(range(distribution.low, distribution.high + 1, distribution.step))


@every_space
def test_the_size_is_the_product_of_the_numbers_of_values(space: Any) -> None:
    assert space.size() == math.prod(map(len, map(values_of, space.distributions().values())))


@every_space
def test_neighbours_differ_by_one_step_of_a_number_or_in_one_category(space: Any) -> None:
    architecture = space.sample(random.Random(5))
    expected = set()
    for name, distribution in space.distributions().items():
        here = architecture.params[name]
        for value in values_of(distribution):
            if isinstance(distribution, CategoricalDistribution):
                near = value != here
            else:
                near = abs(value - here) == distribution.step
            if near:
                expected.add(Architecture(space.name, {**architecture.params, name: value}))
    around = list(space.neighbours(architecture))
    assert len(around) == len(expected)
    assert set(around) == expected
    for other in around:
        assert (
            sum(other.params[name] != architecture.params[name] for name in architecture.params)
            == 1
        )
        assert space.macs(other, 8) > 0


@every_case
def test_a_fixed_trial_and_a_study_speak_to_the_space(name: str) -> None:
    space = CASES[name].space
    architecture = space.sample(random.Random(7))
    assert space.suggest(optuna.trial.FixedTrial(dict(architecture.params))) == architecture

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), directions=["minimize", "maximize"]
    )
    study.optimize(lambda trial: (space.macs(space.suggest(trial), 8), 0.0), n_trials=10)
    for trial in study.trials:
        assert trial.distributions == space.distributions()
        assert trial.values[0] == space.macs(Architecture(space.name, trial.params), 8)


@every_case
def test_outputs_are_unit_vectors_of_the_gallery_dimension(name: str) -> None:
    case = CASES[name]
    model = case.space.build(case.space.largest(), DIMENSION).eval()
    images = images_for(model, 4)
    vectors = model(images)
    assert vectors.shape == (4, DIMENSION)
    assert model.dimension == DIMENSION
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert model.pooled(images).shape == (4, case.features)


@every_case
@settings(max_examples=12)
@given(seed=seeds)
def test_an_extracted_network_computes_what_the_supernet_computes(name: str, seed: int) -> None:
    space, supernet = CASES[name].space, SUPERNETS[name]
    architecture = space.sample(random.Random(seed))
    supernet.activate(architecture)
    images = images_for(supernet, 3)
    alone = supernet.extract(architecture)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), supernet(images), atol=1e-5, rtol=0)
    assert alone.resolution == architecture.params["resolution"]
    assert count_parameters(alone) == count_parameters(space.build(architecture, DIMENSION))
    assert not any("lastic" in type(module).__name__ for module in alone.modules())


@every_case
def test_activating_one_architecture_leaves_no_trace_on_another(name: str) -> None:
    space, supernet = CASES[name].space, SUPERNETS[name]
    rng = random.Random(1)
    drawn = space.sample(rng), space.sample(rng)
    for first, second in (drawn, (space.smallest(), space.largest())):
        supernet.activate(first)
        images = images_for(supernet, 2)
        with torch.no_grad():
            before = supernet(images)
            supernet.activate(second)
            supernet.activate(first)
            torch.testing.assert_close(supernet(images), before, atol=0, rtol=0)


@every_network
def test_training_a_network_moves_only_the_shared_part_it_uses(
    name: str, architecture: Any
) -> None:
    torch.manual_seed(0)
    space = CASES[name].space
    supernet = space.supernet(8).train()
    supernet.activate(architecture)
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):  # those of residuals may start with zeros
            nn.init.ones_(module.weight)
    supernet(images_for(supernet, 4))[:, 0].sum().backward()
    used = {n: p.shape for n, p in space.build(architecture, 8).named_parameters()}
    if architecture == space.smallest():
        assert CASES[name].shapes.items() <= used.items()
    for parameter_name, parameter in supernet.named_parameters():
        if parameter_name not in used:
            assert parameter.grad is None, parameter_name
            continue
        part = shared_part(parameter.grad, used[parameter_name])
        assert part.abs().sum() > 0, parameter_name
        part.zero_()
        assert parameter.grad.abs().sum() == 0, parameter_name


@every_network
def test_recalibration_works_through_slices(name: str, architecture: Any) -> None:
    torch.manual_seed(0)
    supernet = copy.deepcopy(SUPERNETS[name])
    supernet.activate(architecture)
    alone = supernet.extract(architecture)
    batches = [images_for(alone, 8) for _ in range(3)]
    recalibrate(supernet, batches)
    with torch.no_grad():
        before = alone(batches[0])
        recalibrate(alone, batches)
        after = alone(batches[0])
        torch.testing.assert_close(supernet(batches[0]), after, atol=1e-5, rtol=1e-5)
    has_statistics = any(isinstance(module, nn.BatchNorm2d) for module in alone.modules())
    assert ((before - after).abs().max() > 1e-3) == has_statistics


@every_network
def test_a_folded_network_computes_the_same_and_unfolds_even_after_an_error(
    name: str, architecture: Any
) -> None:
    def fail(model: Any) -> None:
        with folded(model):
            raise RuntimeError("stop")

    model = SUPERNETS[name].extract(architecture)
    images = images_for(model, 8)
    recalibrate(model, [images])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    parts = list(model.named_modules())
    parameters = [id(each) for each in model.parameters()]
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with torch.no_grad():
        expected = model(images)
        with folded(model):
            left = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
            torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
        with pytest.raises(RuntimeError, match="stop"):
            fail(model)
    assert norms - left == sum(isinstance(module, ConvNorm) for module in model.modules())
    assert list(model.named_modules()) == parts
    assert model.state_dict().keys() == state.keys()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, state[key], atol=0, rtol=0)
    assert [id(each) for each in model.parameters()] == parameters


@every_space
def test_a_space_is_made_again_from_its_options(space: Any) -> None:
    assert type(space)(**dataclasses.asdict(space)) == space


@every_network
def test_a_network_is_made_again_from_its_origin_and_from_its_file(
    name: str, architecture: Any, tmp_path: Path
) -> None:
    model = SUPERNETS[name].extract(architecture)
    again = rebuild(json.loads(json.dumps(model.origin)))
    assert again.origin == model.origin
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    images = images_for(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)
    assert loaded.resolution == model.resolution
    assert rebuild(loaded.origin).origin == loaded.origin


@every_kind
def test_an_extracted_network_runs_in_onnxruntime(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = SUPERNETS[name].extract(smallest(case.space, **case.example))
    with out_of_place(model), torch.no_grad():
        torch.onnx.export(
            model,
            (images_for(model, 2),),
            tmp_path / "model.onnx",
            input_names=["images"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for count in (1, 5):
        images = images_for(model, count)
        with torch.no_grad():
            expected = model(images).numpy()
        found = session.run(None, {"images": images.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@every_case
def test_an_architecture_outside_the_space_is_refused(name: str) -> None:
    space, supernet = CASES[name].space, SUPERNETS[name]
    words = f"'another' was given to the space '{space.name}'"
    with pytest.raises(SearchSpaceError, match=words):
        space.macs(Architecture("another", {}), 8)
    with pytest.raises(SearchSpaceError, match=words):
        space.build(Architecture("another", {}), 8)
    with pytest.raises(SearchSpaceError, match=f"'resolution' of the space '{space.name}' is 17"):
        supernet.activate(smallest(space, resolution=17))
