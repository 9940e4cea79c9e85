"""From uint8 pictures to what networks take."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def as_images(pixels: np.ndarray) -> Tensor:
    """View uint8 (B, S, S, 3) as a tensor (B, 3, S, S), channels last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Turn uint8 images into float32 in [0, 1] on ``device``."""
    return images.to(device).float().div_(255)


def as_input(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """Uint8 (B, S, S, 3) as float (B, 3, S, S) in [0, 1] on ``device``, channels last in memory."""
    import torch

    images = torch.from_numpy(np.array(pixels)).to(device, non_blocking=True)
    return images.permute(0, 3, 1, 2).float().div_(255)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize images (B, 3, S, S) to ``resolution`` with antialiasing, as Pillow does.

    They are float32, or uint8 on the CPU, which is several times faster.
    """
    if images.shape[-1] == resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
