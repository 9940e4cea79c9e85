"""Gradients on maps smaller than a kernel, against PyTorch's own in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from compat.training.small_maps import SmallMaps

sides = st.integers(1, 8)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], nn.Conv2d]:
    """A shape of maps, and a depthwise convolution that can read them."""
    channels = draw(st.integers(1, 5))
    kernel = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    side = tuple(
        draw(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(kernel, padding, strict=True)
    )
    layer = nn.Conv2d(
        channels,
        channels,
        kernel,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=padding,
        groups=channels,
        bias=draw(st.booleans()),
    )
    return (draw(st.integers(1, 4)), channels, *side), layer


def gradients(layer: nn.Conv2d, maps: Tensor, direction: Tensor) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    return list(torch.autograd.grad(layer(maps), [maps, *layer.parameters()], direction))


@given(convolutions(), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_values_and_gradients_are_those_of_pytorch(
    made: tuple[tuple[int, ...], nn.Conv2d], seed: int
) -> None:
    shape, layer = made
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    maps = torch.randn(shape, generator=generator, dtype=torch.float64)
    plain = layer(maps)
    direction = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    expected = gradients(layer, maps, direction)
    with SmallMaps():
        torch.testing.assert_close(layer(maps), plain)
        found = gradients(layer, maps, direction)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_second_gradients_are_right() -> None:
    maps = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 3, dtype=torch.float64, requires_grad=True)

    def convolved(maps: Tensor, weight: Tensor) -> Tensor:
        with SmallMaps():
            return functional.conv2d(maps, weight, padding=(2, 1), groups=2)

    assert torch.autograd.gradcheck(convolved, (maps, weight))
    assert torch.autograd.gradgradcheck(convolved, (maps, weight))


@pytest.mark.parametrize(
    ("layer", "side", "gains"),
    [
        (nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False), 4, True),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False), 5, False),
        (nn.Conv2d(4, 8, 5, padding=2, groups=4, bias=False), 4, False),
        (nn.Conv2d(4, 4, 5, padding=2, bias=False), 4, False),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False), 2, False),
        (nn.Conv2d(4, 4, 5, padding="same", groups=4, bias=False), 4, False),
    ],
)
def test_only_what_gains_goes_another_way(layer: nn.Conv2d, side: int, gains: bool) -> None:
    maps = torch.randn(2, 4, side, side)
    with SmallMaps():
        found = layer(maps)
    torch.testing.assert_close(found, layer(maps))
    assert ("Depthwise" in type(found.grad_fn).__name__) is gains
