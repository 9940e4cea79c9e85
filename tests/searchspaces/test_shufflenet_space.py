"""What is particular to choice blocks: their layers, and the sizes that were published."""

import random
from typing import Any

import pytest
import torch
from tiny_spaces import SHUFFLENET

from searchspaces import Architecture, SearchSpaceError, create_space
from searchspaces.shufflenet import ShuffleNetSpace


def uniform(space: Any, kind: Any, ratio: Any) -> Any:
    values = {"kind": kind, "ratio": ratio, "resolution": 16, "stride": 1}
    return Architecture(
        "shufflenet", {name: values[name.rpartition("_")[2]] for name in space.distributions()}
    )


def test_a_layer_of_stride_1_leaves_half_of_the_channels_as_they_are() -> None:
    block = SHUFFLENET.build(uniform(SHUFFLENET, "shuffle3", 1), 4).eval().backbone.layers[1]
    maps = torch.rand(1, 32, 8, 8)
    with torch.no_grad():
        out = block(maps)
    torch.testing.assert_close(out[:, :16], maps[:, ::2])
    assert (out[:, 16:] >= 0).all()
    assert out.shape == maps.shape


def test_the_blocks_are_those_of_the_papers() -> None:
    kernels = {"shuffle3": [1, 3, 1], "shuffle7": [1, 7, 1], "xception": [3, 1, 3, 1, 3, 1]}
    for kind, expected in kernels.items():
        first, second = SHUFFLENET.build(uniform(SHUFFLENET, kind, 2), 4).backbone.layers[:2]
        main = [layer.conv for layer in first[kind].main]
        assert [conv.kernel_size[0] for conv in main] == expected
        assert [conv.stride[0] for conv in main if conv.stride[0] > 1] == [2]
        assert {conv.out_channels for conv in main[1:-1]} == {32}
        assert main[-1].out_channels == 32 - 8
        assert second[kind].main[-1].conv.out_channels == 16
        assert second[kind].shortcut is None


def test_published_sizes_are_met() -> None:
    # Guo et al. search 4 blocks in each of 20 layers, under about 330 million at 224 pixels
    space = ShuffleNetSpace(resolutions=(224,), stem_strides=(2,), ratios=(1,))
    assert space.size() == 4**20
    assert 250e6 < space.macs(space.smallest(), 1000) < 330e6
    assert 330e6 < space.macs(space.largest(), 1000) < 450e6


def test_the_default_space_suits_small_query_models() -> None:
    space = ShuffleNetSpace()
    assert 1e6 < space.macs(space.smallest(), 256) < 5e6
    assert 100e6 < space.macs(space.largest(), 256) < 300e6
    assert len(space.distributions()) == 2 + 2 * 20
    assert space.size() == 3 * 2 * (4 * 3) ** 20


def test_every_layer_has_neighbours_of_its_own() -> None:
    architecture = SHUFFLENET.sample(random.Random(5))
    assert len(list(SHUFFLENET.neighbours(architecture))) == 1 + 1 + 4 * (3 + 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resolutions": []}, "resolutions .* whole numbers from 8 to 2048"),
        ({"resolutions": 32}, "resolutions"),
        ({"resolutions": [32, 32]}, "resolutions .* different whole numbers"),
        ({"stem_strides": [3]}, "stem_strides .* values of 1 and 2"),
        ({"stem_width": 12}, "'stem_width' is 12: .*multiple of 8"),
        ({"head_width": [1024]}, r"'head_width' is \[1024\]"),
        ({"widths": [24, 40], "depths": [1, 1]}, r"'widths\[1\]' is 24: .*multiple of 16"),
        ({"widths": [64, 64], "depths": [1, 1]}, "widths .* larger ones from stage to stage"),
        ({"widths": [16, 64], "depths": [1, 1]}, "after a stem_width of 16"),
        ({"widths": [32, 64]}, "2 widths and 4 depths"),
        ({"widths": [], "depths": []}, "0 widths and 0 depths"),
        ({"widths": 64}, "'widths' is 64: give a list"),
        ({"depths": [4, 4, 0, 4]}, r"'depths\[3\]' is 0: .*equal to 1"),
        ({"kinds": ["shuffle"]}, r"kinds .* \['shuffle'\]: did you mean 'shuffle"),
        ({"ratios": [0]}, "ratios .* numbers from 0.01 to"),
    ],
)
def test_wrong_options_are_named(options: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        create_space("shufflenet", **options)
