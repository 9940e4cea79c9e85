"""Image files on disk as an image source."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from compat.data.opening import BrokenImageError, check_image_file, open_rgb
from searchspaces.support.errors import reason


@dataclass(frozen=True)
class FileSource:
    """One file per image.

    Args:
        paths: The files.
        boxes: (N, 4) float64, x0 y0 x1 y1 in pixels, nan for the whole image; None for no boxes.
    """

    paths: tuple[str, ...]
    boxes: np.ndarray | None = None

    def load(self, index: int) -> Image.Image:
        """The upright, cropped RGB image."""
        return open_rgb(self.paths[index], self._box(index))

    def digest(self, index: int) -> str:
        """Hash of the file's bytes and the box."""
        path = self.paths[index]
        check_image_file(path)
        try:
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        except OSError as error:
            raise BrokenImageError(
                f"The image {path} cannot be read ({reason(error)}): restore it or leave it out."
            ) from error
        content.update(self._box_text(index).encode())
        return content.hexdigest()

    def stamp(self, index: int) -> str:
        """Path, size, time of change and box."""
        path = self.paths[index]
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # the latter of a NUL in a path
            return f"{path}|missing"
        return f"{path}|{status.st_size}|{status.st_mtime_ns}|{self._box_text(index)}"

    def _box(self, index: int) -> np.ndarray | None:
        if self.boxes is None or np.isnan(self.boxes[index]).any():
            return None
        return self.boxes[index]

    def _box_text(self, index: int) -> str:
        box = self._box(index)
        return "" if box is None else " ".join(f"{edge:g}" for edge in box)
