"""Small images and image sets for the tests of this folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compat.data import ImageSet


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 10)) -> Path:
    """Writes a noise image whose content depends on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def class_folders(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Writes root/<class>/<number>.png."""
    for name, count in counts.items():
        for number in range(count):
            seed += 1
            picture(root / name / f"{number:03d}.png", seed)
    return root


@dataclass(frozen=True)
class Numbered:
    """Image i is grey i."""

    def load(self, index: Any) -> Any:
        return Image.new("RGB", (4, 4), (index, index, index))

    def digest(self, index: Any) -> Any:
        return f"{index:x}"

    def stamp(self, index: Any) -> Any:
        return f"numbered|{index}"


def image_set(count: Any = 4, **changes: Any) -> Any:
    """Numbers, labelled even and odd; any field can be changed."""
    fields = {
        "name": "numbers",
        "spec": "numbers",
        "ids": np.array([f"n{i}" for i in range(count)]),
        "labels": np.arange(count) % 2,
        "classes": ("even", "odd"),
        "split": None,
        "camera": None,
        "source": Numbered(),
    }
    return ImageSet(**(fields | changes))
