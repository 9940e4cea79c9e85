"""Stanford Online Products (Song et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compat.data.files import FileSource
from compat.data.images import ImageSet
from compat.data.published.fetching import Archive, require_file, unpacked
from compat.data.published.listing import read_rows

# The checksum that the public metric-learning code bases agree on.
ARCHIVE = Archive(
    "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
    "7f73d41a2f44250d4779881525aea32e",
    "Stanford_Online_Products",
)


def open_sop(root: Path, *, download: bool) -> ImageSet:
    """The first 11,318 products train, the other 11,316 test.

    Raises:
        CompatError: The archive is missing or damaged.
    """
    folder = unpacked(ARCHIVE, root, download=download)
    remedy = f"delete {folder} and unpack {ARCHIVE.file} again"
    paths: list[str] = []
    names: list[str] = []
    split: list[str] = []
    for listing, part in (("Ebay_train.txt", "train"), ("Ebay_test.txt", "")):
        # image_id class_id super_class_id path
        rows = read_rows(require_file(folder / listing, remedy), columns=4, header=1)
        paths += [row[3] for row in rows]
        names += [row[1] for row in rows]
        split += [part] * len(rows)
    classes, labels = np.unique(names, return_inverse=True)
    return ImageSet(
        name="sop",
        spec=f"sop:root={root}",
        ids=np.array(paths),
        labels=labels.astype(np.int64),
        classes=tuple(classes.tolist()),
        split=np.array(split),
        camera=None,
        source=FileSource(tuple(f"{folder}/{path}" for path in paths)),
    )
