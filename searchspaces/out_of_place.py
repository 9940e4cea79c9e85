"""Activations that write over their input, made to leave it alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def out_of_place(network: nn.Module) -> Iterator[None]:
    """Have a network's activations give new tensors inside the block; they compute the same.

    PyTorch's ONNX exporter has to undo what is written in place, which takes it up to two thirds
    as long again; the graph becomes the same.
    """
    changed: list[Any] = [m for m in network.modules() if getattr(m, "inplace", False) is True]
    try:
        for each in changed:
            each.inplace = False
        yield
    finally:
        for each in changed:
            each.inplace = True
