"""The elastic space and its supernet: one plan behind counting, building, slicing and copying."""

import random

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchspaces import (
    Architecture,
    MBConvSpace,
    MBConvSupernet,
    SearchSpaceError,
    count_macs,
    rebuild,
    recalibrate,
)
from searchspaces.elastic.modules import SqueezeExcite

SMALL = MBConvSpace(
    resolutions=(16, 24),
    stem_widths=(8, 16),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "expansions": [1, 2.5], "strides": [1, 2]},
        {"widths": [16, 24], "depths": [1, 3], "kernels": [3, 5, 7], "activation": "relu"},
    ],
    head_widths=(32, 48),
    se=True,
)
PLAIN = MBConvSpace(
    resolutions=(16,),
    stages=[{**vars(stage), "se": None} for stage in SMALL.stages],
    head_widths=(32,),
)
SWITCHED = MBConvSpace(
    resolutions=(16,),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "strides": [1], "activation": ["hswish", "relu"]},
        {"widths": [16], "depths": [1], "kernels": [3, 7], "activation": "relu", "se": True},
        {"widths": [16, 24], "depths": [2], "kernels": [3, 5, 7], "activation": ["relu"]},
    ],
    head_widths=(32,),
    se=[True, False],
)
seeds = st.integers(0, 10**6)


def eventful_supernet(space=SMALL, dimension=12, *, kernel_transform=False):
    """A supernet whose BatchNorms and kernel transforms all differ from the identity."""
    torch.manual_seed(0)
    supernet = MBConvSupernet(space, dimension, kernel_transform=kernel_transform)
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
SWITCHING = eventful_supernet(SWITCHED, kernel_transform=True)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([SUPERNET, SWITCHING]))
def test_an_extracted_network_computes_what_the_supernet_computes(seed, supernet):
    arch = supernet.space.sample(random.Random(seed))
    supernet.activate(arch)
    images = torch.rand(3, 3, supernet.resolution, supernet.resolution)
    alone = supernet.extract(arch)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), supernet(images), atol=1e-5, rtol=0)
    assert alone.resolution == arch.params["resolution"]
    assert not any("lastic" in type(module).__name__ for module in alone.modules())


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([SMALL, PLAIN, SWITCHED]), st.sampled_from([8, 24]))
def test_the_formula_counts_what_fvcore_counts(seed, space, dimension):
    arch = space.sample(random.Random(seed))
    model = space.build(arch, dimension)
    assert space.macs(arch, dimension) == count_macs(model, model.resolution)


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


def test_training_a_narrow_network_moves_only_the_shared_part_it_uses():
    supernet = MBConvSupernet(PLAIN, 8).train()
    supernet.activate(PLAIN.smallest())
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    gradient = supernet.backbone.stem.conv.weight.grad
    assert gradient[:8].abs().sum() > 0
    assert gradient[8:].abs().sum() == 0
    kernel = supernet.backbone.stages[1][0].depthwise.conv.weight.grad.clone()
    assert kernel[:, :, 2:5, 2:5].abs().sum() > 0
    kernel[:, :, 2:5, 2:5] = 0
    assert kernel.abs().sum() == 0


def test_recalibration_works_through_slices():
    supernet = eventful_supernet(PLAIN)
    arch = PLAIN.sample(random.Random(3))
    supernet.activate(arch)
    alone = supernet.extract(arch)
    batches = [torch.rand(8, 3, 16, 16) for _ in range(3)]
    recalibrate(supernet, batches)
    recalibrate(alone, batches)
    with torch.no_grad():
        torch.testing.assert_close(supernet(batches[0]), alone(batches[0]), atol=1e-5, rtol=1e-5)


def test_the_default_space_spans_the_promised_range():
    space = MBConvSpace()
    at_48 = MBConvSpace(resolutions=(48,))
    assert 0.5e6 < at_48.macs(at_48.smallest(), 256) < 1e6
    assert 25e6 < at_48.macs(at_48.largest(), 256) < 50e6
    assert len(space.distributions()) == 24
    assert space.size() == np.prod(
        [
            len(getattr(distribution, "choices", ())) or len(range_of(distribution))
            for distribution in space.distributions().values()
        ]
    )


def range_of(distribution):
    return range(distribution.low, distribution.high + 1, distribution.step)


@pytest.mark.parametrize("space", [SMALL, SWITCHED, MBConvSpace(), MBConvSpace(se=(False, True))])
def test_no_architecture_costs_more_than_the_largest_or_less_than_the_smallest(space):
    rng = random.Random(0)
    macs = [space.macs(space.sample(rng), 64) for _ in range(300)]
    assert space.macs(space.smallest(), 64) <= min(macs)
    assert max(macs) <= space.macs(space.largest(), 64)


def test_gates_and_activations_are_parameters_only_where_there_is_a_choice():
    kinds = {"se", "activation"}
    chosen = {
        name: distribution.choices
        for name, distribution in SWITCHED.distributions().items()
        if name.partition("_")[2] in kinds
    }
    assert chosen == {
        "stage1_activation": ("relu", "hswish"),
        "stage1_se": (False, True),
        "stage3_se": (False, True),
    }
    assert MBConvSpace(se=True).distributions() == MBConvSpace().distributions()


def test_gates_and_activations_follow_the_architecture():
    def described(**params):
        arch = Architecture("mbconv", {**SWITCHED.largest().params, **params})
        backbone = SWITCHED.build(arch, 8).backbone
        return [
            (isinstance(stage[0].excite, SqueezeExcite), type(stage[0].expand.activation))
            for stage in backbone.stages
        ]

    relu, hswish = torch.nn.ReLU, torch.nn.Hardswish
    assert described() == [(True, hswish), (True, relu), (True, relu)]
    assert described(stage1_se=False, stage3_se=False, stage1_activation="relu") == [
        (False, relu),
        (True, relu),
        (False, relu),
    ]


def test_a_gate_that_is_off_keeps_its_weights_and_gets_no_gradient():
    supernet = MBConvSupernet(SWITCHED, 8).train()
    supernet.activate(SWITCHED.smallest())
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    first, second, _ = supernet.backbone.stages
    assert first[0].excite.reduce.weight.grad is None
    assert second[0].excite.reduce.weight.grad.abs().sum() > 0
    on = Architecture("mbconv", {**SWITCHED.smallest().params, "stage1_se": True})
    torch.testing.assert_close(
        supernet.extract(on).backbone.stages[0][0].excite.reduce.weight,
        first[0].excite.reduce.weight[:8, :24],
    )


def test_kernels_are_transformed_where_the_stage_has_several():
    supernet = MBConvSupernet(SWITCHED, 8, kernel_transform=True)
    sides = [list(stage[0].depthwise.conv.transforms) for stage in supernet.backbone.stages]
    assert sides == [["3"], ["3"], ["5", "3"]]
    supernet.train().activate(SWITCHED.smallest())
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    assert supernet.backbone.stages[1][0].depthwise.conv.transforms["3"].grad.abs().sum() > 0


def test_neighbours_differ_in_one_parameter():
    arch = SMALL.sample(random.Random(5))
    around = list(SMALL.neighbours(arch))
    assert len(set(around)) == len(around) >= len(SMALL.distributions())
    for other in around:
        assert sum(other.params[name] != arch.params[name] for name in arch.params) == 1


def test_a_fixed_trial_and_a_study_speak_to_the_space():
    arch = SMALL.sample(random.Random(7))
    assert SMALL.suggest(optuna.trial.FixedTrial(dict(arch.params))) == arch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), directions=["minimize", "maximize"]
    )
    study.optimize(lambda t: (SMALL.macs(SMALL.suggest(t), 8), 0.0), n_trials=10)
    for trial in study.trials:
        assert trial.distributions == SMALL.distributions()
        assert trial.values[0] == SMALL.macs(Architecture("mbconv", trial.params), 8)


def test_a_built_model_can_be_made_again_from_its_origin():
    model = SMALL.build(SMALL.sample(random.Random(9)), 12)
    again = rebuild(model.origin)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    assert again.origin == model.origin


def test_descriptions_without_choices_of_gates_and_activations_are_understood():
    stage = {"widths": (8,), "depths": (1,), "expansions": (2,), "kernels": (3,), "strides": (2,)}
    options = {
        "resolutions": (16,),
        "stem_widths": (8,),
        "stem_strides": (1,),
        "stages": ({**stage, "activation": "relu"},),
        "head_widths": (16,),
        "se": False,
    }
    params = dict(MBConvSpace(**options).largest().params)
    model = rebuild(
        {"space": {"name": "mbconv", "options": options}, "params": params, "dimension": 4}
    )
    block = model.backbone.stages[0][0]
    assert isinstance(block.expand.activation, torch.nn.ReLU)
    assert isinstance(block.excite, torch.nn.Identity)


def test_outputs_are_unit_vectors_of_the_gallery_dimension():
    model = SMALL.build(SMALL.largest(), 12).eval()
    vectors = model(torch.rand(4, 3, 24, 24))
    assert vectors.shape == (4, 12)
    assert model.dimension == 12
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert model.pooled(torch.rand(4, 3, 24, 24)).shape == (4, 48)


def test_an_extracted_network_runs_in_onnxruntime(tmp_path):
    model = SUPERNET.extract(SMALL.smallest())
    images = torch.rand(2, 3, model.resolution, model.resolution)
    torch.onnx.export(
        model,
        (images,),
        tmp_path / "model.onnx",
        input_names=["images"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    more = torch.rand(5, 3, model.resolution, model.resolution)
    with torch.no_grad():
        expected = model(more).numpy()
    np.testing.assert_allclose(session.run(None, {"images": more.numpy()})[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stem_widths": [12]}, "stem_widths .* different multiples of 8"),
        ({"resolutions": []}, "resolutions"),
        ({"resolutions": 32}, "resolutions"),
        ({"head_widths": [64, 64]}, "head_widths"),
        ({"stages": []}, "'stages'"),
        ({"stages": [{"widths": [8]}]}, r"stages\[1\] .* needs the option 'depths'"),
        (
            {"stages": [{"widths": [8], "depths": [1], "kernel": [3]}]},
            "no option 'kernel': did you mean 'kernels'",
        ),
        (
            {"stages": [{"widths": [8], "depths": [1], "kernels": [4]}]},
            r"\[1\].kernels .*odd",
        ),
        ({"stages": [{"widths": [8], "depths": [0]}]}, r"stages\[1\].depths"),
        ({"stages": [{"widths": [8], "depths": [1], "activation": "rely"}]}, "did you mean 'relu'"),
        (
            {"stages": [{"widths": [8], "depths": [1], "se": []}]},
            r"\[1\].se .* one value or differ",
        ),
        ({"se": "yes"}, "^se of the space 'mbconv' is 'yes': known are 'false', 'true'"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(SearchSpaceError, match=words):
        MBConvSpace(**options)


def test_an_architecture_of_another_space_is_refused():
    with pytest.raises(SearchSpaceError, match="'pruned' was given to the space 'mbconv'"):
        SMALL.macs(Architecture("pruned", {}), 8)
