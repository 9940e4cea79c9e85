"""Networks block by block: the chain is the network, and a space lists all blocks that it has."""

import itertools
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from searchspaces import (
    Architecture,
    BlockwiseSpace,
    MBConvSpace,
    ResNetSpace,
    ShuffleNetSpace,
    UnionSpace,
    ViTSpace,
    parameters,
)

DIMENSION = 12
MBCONV = MBConvSpace(
    resolutions=(16, 24),
    stem_widths=(8, 16),
    stem_strides=(1, 2),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "expansions": [1, 2], "kernels": [3]},
        {"widths": [16], "depths": [1, 3], "expansions": [2], "kernels": [3, 5], "strides": [1, 2]},
    ],
    head_widths=(32,),
    se=True,
)
SWITCHED = MBConvSpace(
    resolutions=(16,),
    stages=[
        {
            "widths": [8],
            "depths": [2],
            "expansions": [2],
            "kernels": [3],
            "activation": ["relu", "hswish"],
            "se": [False, True],
        },
        {"widths": [8], "depths": [2], "expansions": [2], "kernels": [3]},
    ],
)
RESNET = ResNetSpace(
    resolutions=(16, 24),
    stem_widths=(8, 16),
    stem_strides=(1, 2, 4),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "kernels": [3, 5], "strides": [1]},
        {"widths": [16, 32], "depths": [1, 2], "block": "bottleneck", "ratios": [0.5]},
    ],
)
IDENTICAL = ResNetSpace(
    resolutions=(16,),
    stem_widths=(8,),
    stages=[{"widths": [8], "depths": [1, 2], "strides": [1]}, {"widths": [16], "depths": [1]}],
)
VIT = ViTSpace(
    resolutions=(16, 32),
    patches=(4, 8),
    stem_width=8,
    widths=(16, 24),
    depths=(2, 3),
    heads=(1, 2),
    head_width=8,
    ratios=(1, 2),
    parts=2,
)
PATCHES = ViTSpace(
    resolutions=(16,), patches=(4,), stems="patch", widths=(16,), depths=(1, 2), parts=1
)
SHUFFLENET = ShuffleNetSpace(
    resolutions=(16, 24), widths=(32, 48), depths=(1, 2), ratios=(0.5, 1), head_width=16
)
FEW = ShuffleNetSpace(
    resolutions=(16,), stem_strides=(2,), widths=(32,), depths=(2,), kinds="xception", head_width=16
)
UNION = UnionSpace(
    {
        "residual": {"space": "resnet", "resolutions": [16], "stem_widths": [8]},
        "shuffled": {"space": "shufflenet", "widths": [32], "depths": [1], "ratios": [1]},
        "wider": {"space": "shufflenet", "widths": [32], "depths": [2], "ratios": [1]},
    }
)
SPACES = [MBCONV, SWITCHED, RESNET, IDENTICAL, VIT, PATCHES, SHUFFLENET, FEW, UNION]
DEFAULTS = {
    "mbconv": (MBConvSpace(), 1500),
    "resnet": (ResNetSpace(), 573),
    "vit": (ViTSpace(), 288),
    "shufflenet": (ShuffleNetSpace(), 478),
}
seeds = st.integers(0, 10**6)


def disturb(model: Any) -> Any:
    """Let all norms differ from the identity, those that silence a fresh block among them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                for tensor in module.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.uniform_(0.5, 1.5)
    return model.eval()


@settings(max_examples=60)
@given(seeds, st.sampled_from(SPACES))
def test_the_blocks_compute_what_the_network_computes(seed: int, space: Any) -> None:
    architecture = space.sample(random.Random(seed))
    model = disturb(space.build(architecture, DIMENSION))
    weights = [t for name, t in model.state_dict().items() if name not in ("mean", "std")]
    images = torch.rand(2, 3, model.resolution, model.resolution)
    maps = images
    for recipe in space.blocks(architecture, DIMENSION):
        assert maps.shape[1:] == recipe.shape
        block = recipe.make().eval()
        block.load_state_dict({name: weights.pop(0) for name in block.state_dict()})
        with torch.no_grad():
            maps = block(maps)
    assert not weights
    with torch.no_grad():
        torch.testing.assert_close(maps, model(images), atol=1e-5, rtol=1e-5)


def every_architecture(space: Any) -> Any:
    axes = {name: parameters.grid(name, each) for name, each in space.distributions().items()}
    for values in itertools.product(*axes.values()):
        yield Architecture(space.name, dict(zip(axes, values, strict=True)))


@pytest.mark.parametrize("space", SPACES[:-1])
def test_every_block_is_listed_and_no_other(space: Any) -> None:
    listed = [recipe.key for recipe in space.every_block(DIMENSION)]
    needed = {
        r.key
        for architecture in every_architecture(space)
        for r in space.blocks(architecture, DIMENSION)
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == needed


def test_a_union_lists_the_blocks_of_its_spaces_once() -> None:
    listed = [recipe.key for recipe in UNION.every_block(DIMENSION)]
    parts = [{r.key for r in s.every_block(DIMENSION)} for s in UNION.members.values()]
    assert parts[1] < parts[2]
    assert len(listed) == len(parts[0]) + len(parts[2])
    assert set(listed) == parts[0] | parts[2]


LISTED = {
    name: {recipe.key: recipe for recipe in space.every_block(64)}
    for name, (space, _) in DEFAULTS.items()
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_space_has_blocks_enough_to_time(name: str) -> None:
    space, blocks = DEFAULTS[name]
    assert isinstance(space, BlockwiseSpace)
    assert len(LISTED[name]) == blocks


@settings(max_examples=60)
@given(seeds, st.sampled_from(list(DEFAULTS)))
def test_blocks_with_equal_keys_are_alike(seed: int, name: str) -> None:
    space, _ = DEFAULTS[name]
    rng = random.Random(seed)
    recipes = space.blocks(space.sample(rng), 64)
    assert all(recipe.key in LISTED[name] for recipe in recipes)
    recipe = rng.choice(recipes)
    listed = LISTED[name][recipe.key]
    assert listed.shape == recipe.shape
    assert str(listed.make()) == str(recipe.make())
