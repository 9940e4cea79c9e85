"""What is particular to transformers: attention, stems, places of tokens, parts of the depth."""

import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_spaces import VIT, eventful_supernet

from pruning import cut, load_model, save_model
from searchspaces import Architecture, SearchSpaceError, count_macs, create_space, parameters
from searchspaces.vit import ViTSpace, ViTSupernet

SUPERNET = eventful_supernet(VIT)


def random_arch(space: Any, seed: Any, **fixed: Any) -> Any:
    architecture = space.sample(random.Random(seed))
    return Architecture(architecture.space, {**architecture.params, **fixed})


def test_attention_is_what_pytorch_computes() -> None:
    architecture = random_arch(VIT, 0, part1_heads=3, width=24)
    attention = SUPERNET.extract(architecture).backbone.blocks[0].attention
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


def test_plain_patches_are_a_convolution_as_wide_as_its_stride() -> None:
    stem = VIT.build(random_arch(VIT, 0, stem="patch", patch=4), 8).backbone.stems["patch4"]
    images = torch.rand(2, 3, 16, 16)
    kernel = stem.embed.weight.view(-1, 3, 4, 4)
    expected = torch.nn.functional.conv2d(images, kernel, stem.embed.bias, stride=4)
    torch.testing.assert_close(stem(images), expected.permute(0, 2, 3, 1), atol=1e-5, rtol=0)


def test_a_token_knows_its_place() -> None:
    model = SUPERNET.extract(random_arch(VIT, 0, stem="patch", patch=4, resolution=16))
    images = torch.rand(1, 3, 16, 16)
    moved = torch.cat([images[..., 4:], images[..., :4]], dim=-1)  # the same set of patches
    with torch.no_grad():
        assert (model(images) - model(moved)).abs().max() > 1e-3


def test_heads_and_ratio_follow_the_part_of_the_depth() -> None:
    choice = {"part1_heads": 1, "part2_heads": 3, "part1_ratio": 0.5, "part2_ratio": 1}
    plan = VIT.plan(random_arch(VIT, 0, width=40, depth=5, **choice))
    assert [block.heads for block in plan.blocks] == [1, 1, 1, 3, 3]
    assert [block.hidden for block in plan.blocks] == [16, 16, 16, 40, 40]


def test_one_kind_of_stem_is_no_choice() -> None:
    space = create_space("vit", stems="conv")
    assert "stem" not in space.distributions()
    assert space.plan(space.smallest()).stem.name in ("conv8", "conv16")


def test_no_two_architectures_are_one_network() -> None:
    space = ViTSpace(resolutions=(16,), patches=(8,), widths=(16,), depths=(2, 3), parts=2)
    grids = [parameters.grid(name, each) for name, each in space.distributions().items()]
    archs = [
        Architecture("vit", dict(zip(space.distributions(), values, strict=True)))
        for values in product(*grids)
    ]
    assert len({space.plan(architecture) for architecture in archs}) == space.size() == len(archs)


@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_every_weight_of_a_small_network_is_trained(stem: Any) -> None:
    supernet = ViTSupernet(VIT, 8).train()
    architecture = random_arch(VIT, 1, stem=stem, patch=4, width=16, depth=2, part1_heads=1)
    supernet.activate(architecture)
    supernet(torch.rand(4, 3, supernet.resolution, supernet.resolution))[:, 0].sum().backward()
    qkv = supernet.backbone.blocks[0].attention.qkv.weight.grad
    assert qkv[:24, :16].abs().sum(1).all()
    alone = VIT.build(architecture, 8).train()
    alone(torch.rand(4, 3, alone.resolution, alone.resolution))[:, 0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in alone.parameters())


@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_a_small_network_learns(stem: Any) -> None:
    torch.manual_seed(0)
    model = VIT.build(random_arch(VIT, 2, stem=stem, resolution=16), 16).train()
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


def test_the_default_space_spans_the_promised_range() -> None:
    space = ViTSpace()
    assert 1e6 < space.macs(space.smallest(), 256) < 3e6
    assert 200e6 < space.macs(space.largest(), 256) < 300e6
    assert len(space.distributions()) == 11
    assert space.size() == 3 * 2 * 2 * 4 * 4 * (3 * 3) ** 3


def test_a_network_can_be_cut(tmp_path: Path) -> None:
    space = ViTSpace(resolutions=(16,), patches=(8,), widths=(48,), depths=(2,), parts=1)
    model = space.build(random_arch(space, 0, stem="conv"), 12).eval()
    cut_model = cut(model, 0.5)
    images = torch.rand(2, 3, 16, 16)
    assert count_macs(cut_model, 16) < 0.4 * count_macs(model, 16)
    save_model(cut_model, tmp_path / "cut.safetensors")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "cut.safetensors")(images), cut_model(images))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"resolutions": [64, 72]},
            "resolutions .* has 72, which patches of 16 .* multiples of 16",
        ),
        ({"resolutions": 64}, "resolutions .* list of different whole numbers from 1 to"),
        ({"patches": [12]}, r"patches .*\[12\]: give a list of different powers of two"),
        ({"stems": ["convolution"]}, "stems of the space 'vit' .*: did you mean 'conv'"),
        ({"stem_width": 12}, "'stem_width' is 12: .*multiple of 8"),
        ({"head_width": [32]}, r"'head_width' is \[32\]: .*integer"),
        ({"widths": [100]}, "widths .* multiples of 8"),
        ({"depths": []}, "depths"),
        ({"heads": [2, 2]}, "heads"),
        ({"heads": [True]}, "heads"),
        ({"ratios": [0, 1]}, "ratios .* numbers from 0.01 to"),
        ({"parts": 4}, "parts .* is 4: give a whole number from 1 to 3, the least of depths"),
        ({"parts": 0}, "'parts' is 0: .*equal to 1"),
    ],
)
def test_wrong_options_are_named(options: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        ViTSpace(**options)


def test_an_unknown_stem_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="'stem' of the space 'vit' is 'late'"):
        SUPERNET.activate(random_arch(VIT, 0, stem="late"))
