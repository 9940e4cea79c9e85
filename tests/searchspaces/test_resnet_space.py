"""The elastic residual space and its supernet."""

import dataclasses
import json
import random

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning import load_model, save_model
from searchspaces import (
    Architecture,
    ElasticSpace,
    SearchSpaceError,
    count_macs,
    create_space,
    rebuild,
    recalibrate,
    timm_query_model,
)
from searchspaces.resnet import ResNetSpace, ResNetSupernet, Stage

SMALL = ResNetSpace(
    resolutions=(16, 25),
    stem_widths=(8, 16),
    stem_strides=(1, 2, 4),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "kernels": [3, 5], "strides": [1, 2]},
        {"widths": [16, 24], "depths": [1, 3], "ratios": [0.25, 0.5], "block": "bottleneck"},
        {
            "widths": [32],
            "depths": [2],
            "block": "bottleneck",
            "kernels": [1, 3, 7],
            "ratios": [0.5],
        },
    ],
)
FIXED = ResNetSpace(
    resolutions=(16,),
    stem_widths=(16,),
    stem_strides=(1,),
    stages=[
        {"widths": [16], "depths": [1, 2], "strides": [1], "kernels": [3, 5]},
        {"widths": [16], "depths": [1], "strides": [2]},
    ],
)
seeds = st.integers(0, 10**6)


def eventful_supernet(space=SMALL, dimension=12):
    """A supernet whose BatchNorms and kernel transforms all differ from the identity."""
    torch.manual_seed(0)
    supernet = space.supernet(dimension, kernel_transform=True)
    with torch.no_grad():
        for name, tensor in supernet.named_parameters():
            if "transforms" in name:
                tensor.normal_(std=0.3)
        for module in supernet.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    return supernet.eval()


SUPERNET = eventful_supernet()


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_an_extracted_network_computes_what_the_supernet_computes(seed):
    arch = SMALL.sample(random.Random(seed))
    SUPERNET.activate(arch)
    images = torch.rand(3, 3, SUPERNET.resolution, SUPERNET.resolution)
    alone = SUPERNET.extract(arch)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), SUPERNET(images), atol=1e-5, rtol=0)
    assert alone.resolution == arch.params["resolution"]
    assert not any("lastic" in type(module).__name__ for module in alone.modules())


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([SMALL, FIXED]), st.sampled_from([8, 24]))
def test_the_formula_counts_what_fvcore_counts(seed, space, dimension):
    arch = space.sample(random.Random(seed))
    model = space.build(arch, dimension)
    assert space.macs(arch, dimension) == count_macs(model, model.resolution)


@pytest.mark.parametrize(
    ("name", "block", "ratio", "widths", "depths"),
    [
        ("resnet18", "basic", 1, (64, 128, 256, 512), (2, 2, 2, 2)),
        ("resnet50", "bottleneck", 0.25, (256, 512, 1024, 2048), (3, 4, 6, 3)),
    ],
)
def test_the_textbook_networks_cost_what_timms_do(name, block, ratio, widths, depths):
    stages = [
        {
            "widths": [width],
            "depths": [depth],
            "ratios": [ratio],
            "block": block,
            "strides": [1 if index == 0 else 2],
        }
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True))
    ]
    space = ResNetSpace(resolutions=[64], stem_widths=[64], stem_strides=[4], stages=stages)
    theirs = count_macs(timm_query_model(name, 8, resolution=64, pretrained=False), 64)
    stem = (7**2 - 3**2) * 32**2 * 64 * 3
    pooling = 2**2 * widths[-1]  # fvcore counts theirs, but not the mean that is ours
    assert space.size() == 1
    assert space.macs(space.largest(), 8) == theirs - stem - pooling


@pytest.mark.parametrize("space", [SMALL, FIXED, ResNetSpace()])
def test_no_architecture_costs_more_than_the_largest_or_less_than_the_smallest(space):
    rng = random.Random(0)
    macs = [space.macs(space.sample(rng), 64) for _ in range(300)]
    assert space.macs(space.smallest(), 64) <= min(macs)
    assert max(macs) <= space.macs(space.largest(), 64)


def test_the_default_space_spans_the_promised_range():
    space = ResNetSpace()
    assert 1e6 < space.macs(space.smallest(), 256) < 3e6
    assert 200e6 < space.macs(space.largest(), 256) < 300e6
    assert isinstance(space, ElasticSpace)
    assert create_space("resnet") == space


def test_shortcuts_are_convolutions_where_some_architecture_needs_one():
    def projected(space):
        backbone = space.build(space.smallest(), 8).backbone
        return [
            [not isinstance(block.shortcut, torch.nn.Identity) for block in stage]
            for stage in backbone.stages
        ]

    assert projected(SMALL) == [[True], [True], [True, False]]
    assert projected(FIXED) == [[False], [True]]


def test_activating_one_architecture_leaves_no_trace_on_another():
    first, second = SMALL.smallest(), SMALL.largest()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        SUPERNET.activate(first)
        before = SUPERNET(images)
        SUPERNET.activate(second)
        SUPERNET.activate(first)
        torch.testing.assert_close(SUPERNET(images), before, atol=0, rtol=0)


def test_training_a_narrow_network_moves_only_the_shared_part_it_uses():
    supernet = ResNetSupernet(SMALL, 8).train()
    supernet.activate(SMALL.smallest())
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(1.0)
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    conv = supernet.backbone.stages[0][0].convs[1].conv.weight.grad.clone()
    assert conv[:8, :8, 1:4, 1:4].abs().sum() > 0
    conv[:8, :8, 1:4, 1:4] = 0
    assert conv.abs().sum() == 0
    shortcut = supernet.backbone.stages[0][0].shortcut.conv.weight.grad
    assert shortcut[:8, :8].abs().sum() > 0
    assert shortcut[8:].abs().sum() == 0


def test_a_fresh_kernel_transform_changes_nothing_and_is_trained():
    torch.manual_seed(3)
    plain = SMALL.supernet(8).eval()
    torch.manual_seed(3)
    learnt = SMALL.supernet(8, kernel_transform=True).eval()
    arch = SMALL.smallest()
    images = torch.rand(4, 3, 16, 16)
    for supernet in (plain, learnt):
        supernet.activate(arch)
        for block in (block for stage in supernet.backbone.stages for block in stage):
            torch.nn.init.ones_(block.convs[-1].norm.weight)
    torch.testing.assert_close(learnt(images), plain(images))
    learnt.train()(images)[:, 0].sum().backward()
    gradients = {
        name: parameter.grad
        for name, parameter in learnt.named_parameters()
        if "transforms" in name and parameter.grad is not None
    }
    assert gradients["backbone.stages.0.0.convs.0.conv.transforms.3"].abs().sum() > 0
    assert gradients["backbone.stages.2.1.convs.1.conv.transforms.1"].abs().sum() > 0
    assert not any("shortcut" in name for name in gradients)


def test_recalibration_works_through_slices():
    supernet = eventful_supernet()
    arch = SMALL.smallest()
    supernet.activate(arch)
    alone = supernet.extract(arch)
    batches = [torch.rand(8, 3, 16, 16) for _ in range(3)]
    recalibrate(supernet, batches)
    recalibrate(alone, batches)
    with torch.no_grad():
        torch.testing.assert_close(supernet(batches[0]), alone(batches[0]), atol=1e-5, rtol=1e-5)


def test_neighbours_and_a_trial_speak_the_parameters_of_the_space():
    arch = SMALL.sample(random.Random(5))
    around = list(SMALL.neighbours(arch))
    assert len(set(around)) == len(around)
    for other in around:
        assert sum(other.params[name] != arch.params[name] for name in arch.params) == 1
    assert SMALL.suggest(optuna.trial.FixedTrial(dict(arch.params))) == arch
    assert SMALL.size() == 2 * 2 * 3 * (2 * 2 * 2 * 2 * 2) * (2 * 2 * 2) * 3


def test_a_built_model_can_be_made_again_saved_and_loaded(tmp_path):
    origin = SMALL.build(SMALL.sample(random.Random(9)), 12).origin
    again = rebuild(json.loads(json.dumps(origin)))
    assert again.origin == origin
    assert ResNetSpace(**dataclasses.asdict(SMALL)) == SMALL
    model = SUPERNET.extract(SMALL.smallest())
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)


def test_an_extracted_network_runs_in_onnxruntime(tmp_path):
    arch = Architecture("resnet", {**SMALL.smallest().params, "resolution": 25})
    model = SUPERNET.extract(arch)
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 25, 25),),
        tmp_path / "model.onnx",
        input_names=["images"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    more = torch.rand(5, 3, 25, 25)
    with torch.no_grad():
        expected = model(more).numpy()
    np.testing.assert_allclose(session.run(None, {"images": more.numpy()})[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stem_strides": [3]}, "stem_strides of the space 'resnet' .* values of 1, 2 and 4"),
        ({"resolutions": [4]}, "resolutions .* at least 8"),
        ({"stages": []}, "'stages' .* at least one stage"),
        ({"stages": {"widths": [8]}}, "'stages' .* give a list"),
        ({"stages": ["basic"]}, r"stages\[1\] of the space 'resnet' is 'basic': give the stage's"),
        (
            {"stages": [{"widths": [8], "depths": None}]},
            r"stages\[1\] .* needs the option 'depths'",
        ),
        (
            {"stages": [{"widths": [8], "depths": [1], "ratio": [1]}]},
            "no option 'ratio': did you mean 'ratios'",
        ),
        ({"stages": [{"widths": [8], "depths": [1], "ratios": [0]}]}, "different positive numbers"),
        (
            {"stages": [{"widths": [8], "depths": [1], "block": "bottelneck"}]},
            r"stages\[1\].block .* did you mean 'bottleneck'",
        ),
        (
            {"stages": [Stage((8,), (1,), block=["basic"])]},
            r"block .* is \['basic'\]: did you mean",
        ),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(SearchSpaceError, match=words):
        ResNetSpace(**options)


def test_an_architecture_of_another_space_is_refused():
    with pytest.raises(SearchSpaceError, match="'mbconv' was given to the space 'resnet'"):
        SMALL.macs(Architecture("mbconv", {}), 8)
