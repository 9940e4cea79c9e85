"""Random draws of PyTorch that neither depend on nor disturb any others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed PyTorch's generators inside the block; behind it, they go on as before.

    Args:
        seed: The seed.
        device: Where else than on the CPU is drawn inside the block.
    """
    import torch

    gpu = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpu):
        torch.default_generator.manual_seed(seed)
        for each in gpu:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield
