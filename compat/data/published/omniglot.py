"""Omniglot (Lake et al., Science 2015): handwritten characters, 20 writers each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compat.data.files import FileSource
from compat.data.images import ImageSet
from compat.data.published.fetching import Archive, unpacked
from compat.errors import CompatError

_PREFIX = "https://github.com/brendenlake/omniglot/raw/master/python"
# Checksums as in torchvision.datasets.Omniglot.
BACKGROUND = Archive(
    f"{_PREFIX}/images_background.zip", "68d2efa1b9178cc56df9314c21c6e718", "images_background"
)
EVALUATION = Archive(
    f"{_PREFIX}/images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811", "images_evaluation"
)


def open_omniglot(root: Path, *, download: bool) -> ImageSet:
    """Characters of the background alphabets train, those of the evaluation alphabets test.

    Classes are "alphabet/character".

    Raises:
        CompatError: An archive is missing, damaged or holds no characters.
    """
    ids: list[str] = []
    names: list[str] = []
    split: list[str] = []
    for archive, part in ((BACKGROUND, "train"), (EVALUATION, "")):
        folder = unpacked(archive, root, download=download)
        files = sorted(folder.glob("*/*/*.png"))
        if not files:
            raise CompatError(
                f"The folder {folder} holds no <alphabet>/<character>/*.png: delete it and unpack "
                f"{archive.file} again."
            )
        ids += [file.relative_to(root).as_posix() for file in files]
        names += [f"{file.parts[-3]}/{file.parts[-2]}" for file in files]
        split += [part] * len(files)
    classes, labels = np.unique(names, return_inverse=True)
    return ImageSet(
        name="omniglot",
        spec=f"omniglot:root={root}",
        ids=np.array(ids),
        labels=labels.astype(np.int64),
        classes=tuple(classes.tolist()),
        split=np.array(split),
        camera=None,
        source=FileSource(tuple(f"{root}/{name}" for name in ids)),
    )
