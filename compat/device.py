"""Where things are computed, and how to say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device() -> torch.device:
    """The first CUDA device, or the CPU where there is none."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 fast: CUDA, and CPUs with AVX512-BF16 or AMX."""
    import torch

    return device.type == "cuda" or (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def describe(device: torch.device) -> str:
    """Return words for a device, e.g. ``"the CPU (2 threads)"``."""
    import torch

    if device.type == "cuda":
        return f"the GPU ({torch.cuda.get_device_name(device)})"
    return f"the CPU ({torch.get_num_threads()} threads)"
