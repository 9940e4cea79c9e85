"""From pixels to vectors with any torch model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from compat.device import pick_device
from compat.errors import CompatError

if TYPE_CHECKING:
    import torch
    from torch import nn


def embed(
    model: nn.Module,
    pixels: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    batch: int = 128,
    device: torch.device | str | None = None,
    description: str | None = "embedding images",
) -> np.ndarray:
    """Embed images in evaluation mode; the model comes back in the mode it was in.

    Args:
        model: Maps float images (B, 3, S, S) in [0, 1] to (B, d); moved to ``device``.
        pixels: (N, S, S, 3) uint8, may be a memory map.
        rows: (n,) integers, the images to embed, in this order; all of them when None.
        batch: Images at a time.
        device: Where to run, `pick_device` when None; bfloat16 autocast on CUDA only.
        description: Words before the progress bar; None for no bar.

    Returns:
        (N, d) float32, or (n, d).

    Raises:
        CompatError: When there is nothing to embed, ``pixels`` are no images, or an embedding is
            not a finite vector.
    """
    import torch

    from compat.images import as_images, to_float

    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise CompatError(
            f"Pixels have shape {pixels.shape} and type {pixels.dtype}, expected uint8 images "
            "(N, resolution, resolution, 3) as decode() gives them."
        )
    count = len(pixels) if rows is None else len(rows)
    if not count:
        raise CompatError("There are no images to embed: pass at least one.")
    where = pick_device() if device is None else torch.device(device)
    modes = {module: module.training for module in model.modules()}
    model.to(where).eval()
    vectors: np.ndarray | None = None
    try:
        with (
            torch.inference_mode(),
            torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"),
            tqdm(total=count, desc=description, unit="images", disable=description is None) as bar,
        ):
            for start in range(0, count, batch):
                part = slice(start, start + batch)
                images = pixels[part] if rows is None else pixels[rows[part]]
                found = model(to_float(as_images(images), where)).float().cpu().numpy()
                _check(found, start, len(images))
                if vectors is None:
                    vectors = np.empty((count, found.shape[1]), dtype=np.float32)
                vectors[start : start + len(found)] = found
                bar.update(len(found))
    finally:
        for module, training in modes.items():
            module.training = training
    assert vectors is not None
    return vectors


def _check(vectors: np.ndarray, start: int, count: int) -> None:
    if vectors.ndim != 2 or len(vectors) != count:
        raise CompatError(
            f"The model maps {count} images to shape {vectors.shape}, expected ({count}, d): it "
            "must end in one vector per image."
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise CompatError(
            f"The embedding of image {start + int(wrong[0])} is not finite: check the model's "
            "weights and normalisation."
        )
