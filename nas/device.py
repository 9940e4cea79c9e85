"""Where things are computed, said aloud."""

import torch


def describe(device: torch.device) -> str:
    """Return words for a device, e.g. ``"the CPU (2 threads)"``."""
    if device.type == "cuda":
        return f"the GPU ({torch.cuda.get_device_name(device)})"
    return f"the CPU ({torch.get_num_threads()} threads)"
