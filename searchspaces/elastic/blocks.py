"""What the blocks of a network have in common, whatever the space; for tables of latencies."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from searchspaces.space import BlockRecipe


class Stem(nn.Sequential):
    """Normalisation of images in [0, 1] as a `QueryModel` does it, then the first layers."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images - 0.5) / 0.5)


class Mean(nn.Module):
    """The mean over all positions.

    Args:
        positions: The two spatial dimensions of the maps.
    """

    def __init__(self, positions: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(self.positions)


class Head(nn.Sequential):
    """The last layers, the projection among them, then unit length."""

    def forward(self, maps: Tensor) -> Tensor:
        return F.normalize(super().forward(maps), dim=-1)


def recipe(
    part: str, shape: tuple[int, ...], make: Callable[[], nn.Module], /, **deciding: object
) -> BlockRecipe:
    """Describe a block.

    Args:
        part: The space and the part of its networks, "mbconv stem".
        shape: Shape of its input without the batch.
        make: Makes it with fresh weights.
        **deciding: All that its time depends on.
    """
    words = " ".join(f"{name}={value}" for name, value in deciding.items())
    return BlockRecipe(f"{part} {words}", shape, make)
