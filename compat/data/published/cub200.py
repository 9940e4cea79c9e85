"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011) under the metric-learning protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compat.data.files import FileSource
from compat.data.images import ImageSet
from compat.data.published.fetching import Archive, require_file, unpacked
from compat.data.published.listing import read_rows
from compat.errors import CompatError

ARCHIVE = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
    "CUB_200_2011",
)


def open_cub200(root: Path, *, download: bool) -> ImageSet:
    """The first half of the classes (100 species) trains, the other half tests.

    This is the split of Song et al. (CVPR 2016), not the file train_test_split.txt.

    Raises:
        CompatError: The archive is missing or damaged.
    """
    folder = unpacked(ARCHIVE, root, download=download)
    remedy = f"delete {folder} and unpack {ARCHIVE.file} again"

    def column(listing: str) -> list[str]:
        rows = read_rows(require_file(folder / listing, remedy), columns=2)
        return [row[1] for row in rows]

    classes = column("classes.txt")
    paths = column("images.txt")
    numbers = column("image_class_labels.txt")
    if len(numbers) != len(paths):
        raise CompatError(
            f"The file {folder / 'image_class_labels.txt'} lists {len(numbers)} images, but "
            f"images.txt {len(paths)}: {remedy}."
        )
    for number in numbers:
        if not number.isdecimal() or not 1 <= int(number[:9]) <= len(classes):
            raise CompatError(
                f"The file {folder / 'image_class_labels.txt'} holds the label '{number}', "
                f"expected 1 to {len(classes)}: {remedy}."
            )
    labels = np.array(numbers, dtype=np.int64) - 1
    return ImageSet(
        name="cub200",
        spec=f"cub200:root={root}",
        ids=np.array(paths),
        labels=labels,
        classes=tuple(classes),
        split=np.where(labels < len(classes) // 2, "train", ""),
        camera=None,
        source=FileSource(tuple(f"{folder}/images/{path}" for path in paths)),
    )
