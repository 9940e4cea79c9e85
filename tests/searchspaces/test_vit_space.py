"""The elastic transformer space: counting, building, slicing, training, exporting, saving."""

import random
from itertools import product

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning import cut, load_model, save_model
from searchspaces import (
    Architecture,
    ElasticSpace,
    SearchSpaceError,
    count_macs,
    create_space,
    parameters,
    rebuild,
    recalibrate,
)
from searchspaces.vit import ViTSpace, ViTSupernet

SMALL = ViTSpace(
    resolutions=(16, 32),
    patches=(4, 8),
    stem_width=8,
    widths=(16, 24, 40),
    depths=(2, 3, 5),
    heads=(1, 2, 3),
    head_width=8,
    ratios=(0.5, 1, 2.3),
    parts=2,
)
UNIFORM = ViTSpace(
    resolutions=(24,), patches=(8,), stems=("conv",), widths=(32,), depths=(1, 2), parts=1
)
seeds = st.integers(0, 10**6)


def random_arch(space, seed, **fixed):
    arch = space.sample(random.Random(seed))
    return Architecture(arch.space, {**arch.params, **fixed})


def eventful_supernet(space=SMALL, dimension=12):
    """A supernet whose norms all differ from the identity."""
    torch.manual_seed(0)
    supernet = ViTSupernet(space, dimension)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
                for tensor in (*module.parameters(), *module.buffers()):
                    if tensor.is_floating_point():
                        tensor.uniform_(0.5, 1.5)
            elif isinstance(module, torch.nn.Linear):
                module.weight.normal_(std=0.2)
                if module.bias is not None:
                    module.bias.normal_(std=0.2)
    return supernet.eval()


SUPERNET = eventful_supernet()


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([SMALL, SMALL, SMALL, UNIFORM]), st.sampled_from([8, 24]))
def test_the_formula_counts_what_fvcore_counts(seed, space, dimension):
    arch = random_arch(space, seed)
    model = space.build(arch, dimension)
    assert space.macs(arch, dimension) == count_macs(model, model.resolution)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_an_extracted_network_computes_what_the_supernet_computes(seed):
    arch = random_arch(SMALL, seed)
    SUPERNET.activate(arch)
    images = torch.rand(3, 3, SUPERNET.resolution, SUPERNET.resolution)
    alone = SUPERNET.extract(arch)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), SUPERNET(images), atol=1e-5, rtol=0)
    assert alone.resolution == arch.params["resolution"]
    assert not any("lastic" in type(module).__name__ for module in alone.modules())


def test_attention_is_what_pytorch_computes():
    arch = random_arch(SMALL, 0, part1_heads=3, width=24)
    attention = SUPERNET.extract(arch).backbone.blocks[0].attention
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    head, kind, channel = np.ogrid[:3, :3, :8]
    rows = (head * 24 + kind * 8 + channel).swapaxes(0, 1).ravel()  # ours to (kind, head, channel)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(attention.qkv.weight[rows])
        theirs.in_proj_bias.copy_(attention.qkv.bias[rows])
    theirs.out_proj = attention.proj
    tokens = torch.rand(2, 4, 4, 24)
    flat = tokens.flatten(1, 2)
    expected = theirs(flat, flat, flat)[0].unflatten(1, (4, 4))
    torch.testing.assert_close(attention(tokens), expected, atol=1e-5, rtol=0)


def test_plain_patches_are_a_convolution_as_wide_as_its_stride():
    stem = SMALL.build(random_arch(SMALL, 0, stem="patch", patch=4), 8).backbone.stems["patch4"]
    images = torch.rand(2, 3, 16, 16)
    kernel = stem.embed.weight.view(-1, 3, 4, 4)
    expected = torch.nn.functional.conv2d(images, kernel, stem.embed.bias, stride=4)
    torch.testing.assert_close(stem(images), expected.permute(0, 2, 3, 1), atol=1e-5, rtol=0)


def test_a_token_knows_its_place():
    model = SUPERNET.extract(random_arch(SMALL, 0, stem="patch", patch=4, resolution=16))
    images = torch.rand(1, 3, 16, 16)
    moved = torch.cat([images[..., 4:], images[..., :4]], dim=-1)  # the same set of patches
    with torch.no_grad():
        assert (model(images) - model(moved)).abs().max() > 1e-3


def test_heads_and_ratio_follow_the_part_of_the_depth():
    choice = {"part1_heads": 1, "part2_heads": 3, "part1_ratio": 0.5, "part2_ratio": 1}
    plan = SMALL.plan(random_arch(SMALL, 0, width=40, depth=5, **choice))
    assert [block.heads for block in plan.blocks] == [1, 1, 1, 3, 3]
    assert [block.hidden for block in plan.blocks] == [16, 16, 16, 40, 40]


def test_one_kind_of_stem_is_no_choice():
    space = create_space("vit", stems="conv")
    assert "stem" not in space.distributions()
    assert space.plan(space.smallest()).stem.name in ("conv8", "conv16")


def test_no_two_architectures_are_one_network():
    space = ViTSpace(resolutions=(16,), patches=(8,), widths=(16,), depths=(2, 3), parts=2)
    grids = [parameters.grid(name, each) for name, each in space.distributions().items()]
    archs = [
        Architecture("vit", dict(zip(space.distributions(), values, strict=True)))
        for values in product(*grids)
    ]
    assert len({space.plan(arch) for arch in archs}) == space.size() == len(archs)


@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_training_a_small_network_moves_only_the_shared_part_it_uses(stem):
    supernet = ViTSupernet(SMALL, 8).train()
    arch = random_arch(SMALL, 1, stem=stem, patch=4, width=16, depth=2, part1_heads=1)
    supernet.activate(arch)
    supernet(torch.rand(4, 3, supernet.resolution, supernet.resolution))[:, 0].sum().backward()
    backbone = supernet.backbone
    for name, parameter in backbone.stems.named_parameters():
        assert (parameter.grad is not None) == name.startswith(f"{stem}4.")
    qkv = backbone.blocks[0].attention.qkv.weight.grad
    assert qkv[:24, :16].abs().sum(1).all()
    qkv[:24, :16] = 0
    assert not qkv.any()
    assert all(parameter.grad is None for parameter in backbone.blocks[2].parameters())
    alone = SMALL.build(arch, 8).train()
    alone(torch.rand(4, 3, alone.resolution, alone.resolution))[:, 0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in alone.parameters())


@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_a_small_network_learns(stem):
    torch.manual_seed(0)
    model = SMALL.build(random_arch(SMALL, 2, stem=stem, resolution=16), 16).train()
    images = torch.rand(16, 3, 16, 16)
    targets = torch.nn.functional.normalize(torch.randn(16, 16), dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (1 - (model(images) * targets).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_recalibration_works_through_slices():
    supernet = eventful_supernet()
    arch = random_arch(SMALL, 3, stem="conv", resolution=16)
    supernet.activate(arch)
    alone = supernet.extract(arch)
    batches = [torch.rand(8, 3, 16, 16) for _ in range(3)]
    recalibrate(supernet, batches)
    before = alone(batches[0])
    recalibrate(alone, batches)
    with torch.no_grad():
        torch.testing.assert_close(supernet(batches[0]), alone(batches[0]), atol=1e-5, rtol=1e-5)
    assert (before - alone(batches[0])).abs().max() > 1e-3


def test_activating_one_architecture_leaves_no_trace_on_another():
    first, second = random_arch(SMALL, 1), random_arch(SMALL, 2)
    images = torch.rand(2, 3, first.params["resolution"], first.params["resolution"])
    with torch.no_grad():
        SUPERNET.activate(first)
        before = SUPERNET(images)
        SUPERNET.activate(second)
        SUPERNET.activate(first)
        torch.testing.assert_close(SUPERNET(images), before, atol=0, rtol=0)


@pytest.mark.parametrize(
    "space",
    [
        ViTSpace(),
        SMALL,
        # a convolutional stem dearer than its blocks: larger patches cost more
        ViTSpace(
            resolutions=(32,), patches=(2, 32), stem_width=64, widths=(8, 32), depths=(1,), parts=1
        ),
    ],
)
def test_every_architecture_costs_between_the_smallest_and_the_largest(space):
    rng = random.Random(0)
    macs = [space.macs(space.sample(rng), 64) for _ in range(300)]
    assert space.macs(space.smallest(), 64) <= min(macs)
    assert max(macs) <= space.macs(space.largest(), 64)


def test_the_default_space_spans_the_promised_range():
    space = create_space("vit")
    assert isinstance(space, ElasticSpace)
    assert 1e6 < space.macs(space.smallest(), 256) < 3e6
    assert 200e6 < space.macs(space.largest(), 256) < 300e6
    assert len(space.distributions()) == 11
    assert space.size() == 3 * 2 * 2 * 4 * 4 * (3 * 3) ** 3


def test_neighbours_differ_in_one_parameter():
    arch = random_arch(SMALL, 5)
    around = list(SMALL.neighbours(arch))
    assert len(set(around)) == len(around) >= len(SMALL.distributions())
    for other in around:
        assert sum(other.params[name] != arch.params[name] for name in arch.params) == 1


def test_a_trial_speaks_to_the_space():
    arch = random_arch(SMALL, 7)
    assert SMALL.suggest(optuna.trial.FixedTrial(dict(arch.params))) == arch


def test_outputs_are_unit_vectors_of_the_gallery_dimension():
    model = SMALL.build(random_arch(SMALL, 0, width=40, resolution=32), 12).eval()
    vectors = model(torch.rand(4, 3, 32, 32))
    assert vectors.shape == (4, 12)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert model.pooled(torch.rand(4, 3, 32, 32)).shape == (4, 40)


@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_an_extracted_network_can_be_saved_and_loaded(stem, tmp_path):
    model = SUPERNET.extract(random_arch(SMALL, 9, stem=stem))
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, model.resolution, model.resolution)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert rebuild(loaded.origin).origin == loaded.origin
    assert loaded.resolution == model.resolution


def test_a_network_can_be_cut(tmp_path):
    space = ViTSpace(resolutions=(16,), patches=(8,), widths=(48,), depths=(2,), parts=1)
    model = space.build(random_arch(space, 0, stem="conv"), 12).eval()
    cut_model = cut(model, 0.5)
    images = torch.rand(2, 3, 16, 16)
    assert count_macs(cut_model, 16) < 0.4 * count_macs(model, 16)
    save_model(cut_model, tmp_path / "cut.safetensors")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "cut.safetensors")(images), cut_model(images))


def test_an_extracted_network_runs_in_onnxruntime(tmp_path):
    model = SUPERNET.extract(random_arch(SMALL, 9, stem="conv", resolution=32, depth=2))
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, 32, 32),),
        tmp_path / "model.onnx",
        input_names=["images"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 5):
        images = torch.rand(batch, 3, 32, 32)
        with torch.no_grad():
            expected = model(images).numpy()
        found = session.run(None, {"images": images.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"resolutions": [64, 72]},
            "resolutions .* has 72, which patches of 16 .* multiples of 16",
        ),
        ({"resolutions": 64}, "resolutions .* list of different positive whole numbers"),
        ({"patches": [12]}, r"patches .*\[12\]: give a list of different powers of two"),
        ({"stems": ["convolution"]}, "stems of the space 'vit' .*: did you mean 'conv'"),
        ({"stem_width": 12}, "stem_width .* is 12: give one multiple of 8"),
        ({"head_width": [32]}, r"head_width .* is \[32\]: give one multiple of 8"),
        ({"widths": [100]}, "widths .* multiples of 8"),
        ({"depths": []}, "depths"),
        ({"heads": [2, 2]}, "heads"),
        ({"heads": [True]}, "heads"),
        ({"ratios": [0, 1]}, "ratios .* positive numbers"),
        ({"parts": 4}, "parts .* is 4: give a whole number from 1 to 3, the least of depths"),
        ({"parts": 0}, "parts"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(SearchSpaceError, match=words):
        ViTSpace(**options)


def test_an_architecture_outside_the_space_is_refused():
    with pytest.raises(SearchSpaceError, match="'mbconv' was given to the space 'vit'"):
        SMALL.macs(Architecture("mbconv", {}), 8)
    with pytest.raises(SearchSpaceError, match="'stem' of the space 'vit' is 'late'"):
        SUPERNET.activate(random_arch(SMALL, 0, stem="late"))
