"""From uint8 pictures to what networks take."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def as_images(pixels: np.ndarray) -> Tensor:
    """Return uint8 pictures (B, S, S, 3) as a tensor (B, 3, S, S), channels last in memory.

    It shares the memory of an array that is contiguous and can be written to; of others, such as
    a memory map, it is a copy.
    """
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(0, 3, 1, 2)


def to_float(images: Tensor, device: torch.device | None = None) -> Tensor:
    """Turn uint8 images into float32 in [0, 1], on ``device`` or where they are."""
    return images.to(device).float().div_(255)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize images (B, 3, S, S) to ``resolution`` with antialiasing, as Pillow does.

    They are float32, or uint8 on the CPU, which is several times faster.
    """
    if images.shape[-1] == resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
