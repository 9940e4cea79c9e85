"""The space of choice blocks: one plan behind counting, building, choosing and copying."""

import json
import random

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pruning import load_model, save_model
from searchspaces import (
    Architecture,
    ElasticSpace,
    SearchSpaceError,
    Supernet,
    count_macs,
    count_parameters,
    create_space,
    rebuild,
    recalibrate,
)
from searchspaces.shufflenet import ShuffleNetSpace, ShuffleNetSupernet

SMALL = ShuffleNetSpace(
    resolutions=(16, 23),
    stem_width=8,
    widths=(32, 48),
    depths=(2, 2),
    ratios=(0.5, 1, 2),
    head_width=40,
)
seeds = st.integers(0, 10**6)


def eventful_supernet(space=SMALL, dimension=12):
    """A supernet whose BatchNorms all differ from the identity."""
    torch.manual_seed(0)
    supernet = space.supernet(dimension)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    return supernet.eval()


SUPERNET = eventful_supernet()


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_the_formula_counts_what_fvcore_counts(seed):
    arch = SMALL.sample(random.Random(seed))
    model = SMALL.build(arch, 12)
    assert SMALL.macs(arch, 12) == count_macs(model, model.resolution)


def test_the_formula_holds_for_the_default_space():
    space = ShuffleNetSpace()
    arch = space.sample(random.Random(0))
    model = space.build(arch, 64)
    assert space.macs(arch, 64) == count_macs(model, model.resolution)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_an_extracted_network_computes_what_the_supernet_computes(seed):
    arch = SMALL.sample(random.Random(seed))
    SUPERNET.activate(arch)
    images = torch.rand(3, 3, SUPERNET.resolution, SUPERNET.resolution)
    alone = SUPERNET.extract(arch)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), SUPERNET(images), atol=1e-5, rtol=0)
    assert alone.resolution == arch.params["resolution"]
    assert count_parameters(alone) == count_parameters(SMALL.build(arch, 12))
    assert not any("lastic" in type(module).__name__ for module in alone.modules())


def test_it_is_an_elastic_space_whose_supernet_starts_as_the_largest():
    supernet = SMALL.supernet(5)
    assert isinstance(SMALL, ElasticSpace)
    assert isinstance(supernet, ShuffleNetSupernet)
    assert isinstance(supernet, Supernet)
    assert supernet.arch == SMALL.largest()
    assert supernet.resolution == 23
    assert supernet.dimension == 5


def test_activating_one_architecture_leaves_no_trace_on_another():
    rng = random.Random(1)
    first, second = SMALL.sample(rng), SMALL.sample(rng)
    images = torch.rand(2, 3, first.params["resolution"], first.params["resolution"])
    with torch.no_grad():
        SUPERNET.activate(first)
        before = SUPERNET(images)
        SUPERNET.activate(second)
        SUPERNET.activate(first)
        torch.testing.assert_close(SUPERNET(images), before, atol=0, rtol=0)


def test_training_moves_the_chosen_blocks_alone_and_of_them_the_channels_in_use():
    supernet = SMALL.supernet(8).train()
    arch = uniform(SMALL, "shuffle5", 0.5)
    supernet.activate(arch)
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    choice = supernet.backbone.layers[1]
    assert all(p.grad is None for p in choice["shuffle3"].parameters())
    gradient = choice["shuffle5"].main[0].conv.weight.grad
    assert gradient[:8].abs().sum() > 0
    assert gradient[8:].abs().sum() == 0


def uniform(space, kind, ratio):
    values = {"kind": kind, "ratio": ratio, "resolution": 16, "stride": 1}
    return Architecture(
        "shufflenet", {name: values[name.rpartition("_")[2]] for name in space.distributions()}
    )


def test_recalibration_works_through_slices():
    supernet = eventful_supernet()
    arch = uniform(SMALL, "xception", 0.5)
    supernet.activate(arch)
    alone = supernet.extract(arch)
    batches = [torch.rand(8, 3, 16, 16) for _ in range(3)]
    recalibrate(supernet, batches)
    recalibrate(alone, batches)
    with torch.no_grad():
        torch.testing.assert_close(supernet(batches[0]), alone(batches[0]), atol=1e-5, rtol=1e-5)


def test_a_layer_of_stride_1_leaves_half_of_the_channels_as_they_are():
    block = SMALL.build(uniform(SMALL, "shuffle3", 1), 4).eval().backbone.layers[1]
    maps = torch.rand(1, 32, 8, 8)
    with torch.no_grad():
        out = block(maps)
    torch.testing.assert_close(out[:, :16], maps[:, ::2])
    assert (out[:, 16:] >= 0).all()
    assert out.shape == maps.shape


def test_the_blocks_are_those_of_the_papers():
    kernels = {"shuffle3": [1, 3, 1], "shuffle7": [1, 7, 1], "xception": [3, 1, 3, 1, 3, 1]}
    for kind, expected in kernels.items():
        first, second = SMALL.build(uniform(SMALL, kind, 2), 4).backbone.layers[:2]
        main = [layer.conv for layer in first[kind].main]
        assert [conv.kernel_size[0] for conv in main] == expected
        assert [conv.stride[0] for conv in main if conv.stride[0] > 1] == [2]
        assert {conv.out_channels for conv in main[1:-1]} == {32}
        assert main[-1].out_channels == 32 - 8
        assert second[kind].main[-1].conv.out_channels == 16
        assert second[kind].shortcut is None


def test_published_sizes_are_met():
    # Guo et al. search 4 blocks in each of 20 layers, under about 330 million at 224 pixels
    space = ShuffleNetSpace(resolutions=(224,), stem_strides=(2,), ratios=(1,))
    assert space.size() == 4**20
    assert 250e6 < space.macs(space.smallest(), 1000) < 330e6
    assert 330e6 < space.macs(space.largest(), 1000) < 450e6


def test_the_default_space_suits_small_query_models():
    space = ShuffleNetSpace()
    assert 1e6 < space.macs(space.smallest(), 256) < 5e6
    assert 100e6 < space.macs(space.largest(), 256) < 300e6
    assert len(space.distributions()) == 2 + 2 * 20
    assert space.size() == 3 * 2 * (4 * 3) ** 20


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([SMALL, ShuffleNetSpace(ratios=(0.3, 1.7))]))
def test_every_architecture_costs_between_the_smallest_and_the_largest(seed, space):
    macs = space.macs(space.sample(random.Random(seed)), 64)
    assert space.macs(space.smallest(), 64) <= macs <= space.macs(space.largest(), 64)


def test_neighbours_differ_in_one_parameter_and_can_be_counted():
    arch = SMALL.sample(random.Random(5))
    around = list(SMALL.neighbours(arch))
    assert len(set(around)) == len(around) == 1 + 1 + 4 * (3 + 2)
    for other in around:
        assert sum(other.params[name] != arch.params[name] for name in arch.params) == 1
        assert SMALL.macs(other, 8) > 0


def test_a_fixed_trial_and_a_study_speak_to_the_space():
    arch = SMALL.sample(random.Random(7))
    assert SMALL.suggest(optuna.trial.FixedTrial(dict(arch.params))) == arch
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: SMALL.macs(SMALL.suggest(trial), 8), n_trials=5)
    for trial in study.trials:
        assert trial.distributions == SMALL.distributions()


def test_a_model_is_made_again_from_its_origin_and_from_its_file(tmp_path):
    arch = SMALL.sample(random.Random(9))
    model = SUPERNET.extract(arch)
    again = rebuild(json.loads(json.dumps(model.origin)))
    assert again.state_dict().keys() == model.state_dict().keys()
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, model.resolution, model.resolution)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)


def test_a_network_runs_in_onnxruntime(tmp_path):
    space = ShuffleNetSpace(resolutions=(16,), stem_strides=(2,), widths=(32,), depths=(3,))
    blocks = {"layer1_kind": "xception", "layer2_kind": "shuffle7", "layer3_kind": "xception"}
    arch = Architecture("shufflenet", {**space.smallest().params, **blocks})
    model = eventful_supernet(space).extract(arch)
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 16, 16),),
        tmp_path / "model.onnx",
        input_names=["images"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    more = torch.rand(5, 3, 16, 16)
    with torch.no_grad():
        expected = model(more).numpy()
    np.testing.assert_allclose(session.run(None, {"images": more.numpy()})[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resolutions": []}, "resolutions .* whole numbers of at least 8"),
        ({"resolutions": 32}, "resolutions"),
        ({"resolutions": [32, 32]}, "resolutions .* different whole numbers"),
        ({"stem_strides": [3]}, "stem_strides .* values of 1 and 2"),
        ({"stem_width": 12}, "stem_width .* 12: give one multiple of 8"),
        ({"head_width": [1024]}, "head_width"),
        ({"widths": [24, 40], "depths": [1, 1]}, "widths .* multiples of 16"),
        ({"widths": [64, 64], "depths": [1, 1]}, "widths .* larger ones from stage to stage"),
        ({"widths": [16, 64], "depths": [1, 1]}, "after a stem_width of 16"),
        ({"widths": [32, 64]}, "2 widths and 4 depths"),
        ({"widths": [], "depths": []}, "0 widths and 0 depths"),
        ({"widths": 64}, "widths .* is 64: give a list"),
        ({"depths": [4, 4, 0, 4]}, "depths .* positive whole numbers, one per stage"),
        ({"kinds": ["shuffle"]}, r"kinds .* \['shuffle'\]: did you mean 'shuffle"),
        ({"ratios": [0]}, "ratios .* positive numbers"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(SearchSpaceError, match=words):
        create_space("shufflenet", **options)


def test_an_architecture_of_another_space_is_refused():
    with pytest.raises(SearchSpaceError, match="'mbconv' was given to the space 'shufflenet'"):
        SMALL.macs(Architecture("mbconv", {}), 8)
