"""Arithmetic that every plan of a convolutional network does."""

from typing import Protocol


class Plan(Protocol):
    """The widths, kernels and strides of one concrete network, and what it costs."""

    @property
    def resolution(self) -> int:
        """Side of the input in pixels."""

    @property
    def features(self) -> int:
        """Number of pooled features."""

    def macs(self, dimension: int) -> int:
        """Count the multiply-accumulates of one image as `searchspaces.count_macs` does."""


def strided(side: int, stride: int) -> int:
    """Return the side of the maps after a padded convolution or pooling."""
    return (side - 1) // stride + 1


def multiple_of_8(width: float) -> int:
    """Round a number of channels."""
    return max(8, 8 * round(width / 8))
