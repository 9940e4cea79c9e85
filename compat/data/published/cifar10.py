"""CIFAR-10 (Krizhevsky, 2009) under the seen-class protocol of the hashing papers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from compat.data.folder import open_folder
from compat.data.images import ImageSet, is_text
from compat.data.published.fetching import Archive, require_file, unpacked
from compat.errors import CompatError
from searchspaces.support.reading import read_text

# The binary archive, so that no pickle is read; its checksum stands on the author's page.
ARCHIVE = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-batches-bin",
)
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label byte, then the red, green and blue planes
_PARTS = {
    **{f"data_batch_{number}.bin": "gallery" for number in range(1, 6)},
    "test_batch.bin": "query",
}


@dataclass(frozen=True)
class RecordSource:
    """Images in the records of the binary batches.

    Args:
        files: The batch files.
        batch: (N,) position of each image's file within `files`.
        record: (N,) position of each image within its file.
    """

    files: tuple[str, ...]
    batch: np.ndarray
    record: np.ndarray

    def load(self, index: int) -> Image.Image:
        """The 32 x 32 RGB image."""
        planes = self._pixels(index).reshape(3, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def digest(self, index: int) -> str:
        """Hash of the pixels."""
        return hashlib.blake2b(self._pixels(index).tobytes(), digest_size=16).hexdigest()

    def stamp(self, index: int) -> str:
        """File, its time of change, and the record."""
        file = self.files[self.batch[index]]
        return f"{file}|{Path(file).stat().st_mtime_ns}|{self.record[index]}"

    def _pixels(self, index: int) -> np.ndarray:
        start = int(self.record[index]) * _RECORD + 1
        return np.fromfile(
            self.files[self.batch[index]], dtype=np.uint8, count=_RECORD - 1, offset=start
        )


def open_cifar10(root: Path, *, download: bool) -> ImageSet:
    """Training images are the gallery (and what one trains on), test images the queries.

    Reads the binary archive, or `root/train/<class>/<image>` with `root/test` of the same layout.

    Raises:
        CompatError: The archive is missing or damaged.
    """
    if (root / "train").is_dir() and (root / "test").is_dir():
        images = open_folder(root / "train", queries=root / "test")
        return replace(images, name="cifar10", spec=f"cifar10:root={root}")
    folder = unpacked(ARCHIVE, root, download=download)
    remedy = f"delete its folder and unpack {ARCHIVE.file} again"
    names = require_file(folder / "batches.meta.txt", remedy)
    classes = tuple(read_text(names, error=CompatError, remedy=remedy).split())
    if not all(map(is_text, classes)):
        raise CompatError(
            f"The file {names} holds a name that cannot be written as UTF-8 text: {remedy}."
        )
    files = tuple(str(require_file(folder / name, remedy)) for name in _PARTS)
    labels = [_labels(file, len(classes), remedy) for file in files]
    counts = [len(part) for part in labels]
    return ImageSet(
        name="cifar10",
        spec=f"cifar10:root={root}",
        ids=np.array(
            [
                f"{Path(file).stem}/{number:05d}"
                for file, count in zip(files, counts, strict=True)
                for number in range(count)
            ]
        ),
        labels=np.concatenate(labels),
        classes=classes,
        split=np.repeat(list(_PARTS.values()), counts),
        camera=None,
        source=RecordSource(
            files,
            np.repeat(np.arange(len(files)), counts),
            np.concatenate([np.arange(count) for count in counts]),
        ),
    )


def _labels(file: str, classes: int, remedy: str) -> np.ndarray:
    size = Path(file).stat().st_size
    if size == 0 or size % _RECORD:
        raise CompatError(
            f"The file {file} has {size} bytes, expected a multiple of {_RECORD}: {remedy}."
        )
    labels = np.fromfile(file, dtype=np.uint8).reshape(-1, _RECORD)[:, 0].astype(np.int64)
    if labels.max() >= classes:
        raise CompatError(
            f"The file {file} holds the label {labels.max()}, expected less than {classes}: "
            f"{remedy}."
        )
    return labels
