"""In-shop Clothes Retrieval of DeepFashion (Liu et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compat.data.files import FileSource
from compat.data.images import ImageSet
from compat.data.published.listing import read_rows
from compat.errors import CompatError
from searchspaces.support.naming import did_you_mean

PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
_PARTS = ("train", "query", "gallery")


def open_inshop(root: Path, *, download: bool) -> ImageSet:
    """Published train, query and gallery images; classes are items.

    The set is given out on request only: its list_eval_partition.txt belongs into `root` or
    `root/Eval`, its folder `img` into `root` or `root/Img`.

    Raises:
        CompatError: `download` is on, or a file is missing or damaged.
    """
    if download:
        raise CompatError(
            f"The set inshop cannot be downloaded by a program: ask for it at {PAGE} and unpack it "
            f"into {root}, then leave out download=true."
        )
    listing = _first(root, ["Eval/list_eval_partition.txt", "list_eval_partition.txt"])
    base = _first(root, ["img", "Img/img"]).parent
    rows = read_rows(listing, columns=3, header=2)  # image_name item_id evaluation_status
    for name, _, part in rows:
        if part not in _PARTS:
            raise CompatError(
                f"The file {listing} gives {name} the part '{part}', expected one of {_PARTS}"
                f"{did_you_mean(part, _PARTS)}: unpack the published file again."
            )
    paths, names, split = (list(column) for column in zip(*rows, strict=True))
    classes, labels = np.unique(names, return_inverse=True)
    return ImageSet(
        name="inshop",
        spec=f"inshop:root={root}",
        ids=np.array(paths),
        labels=labels.astype(np.int64),
        classes=tuple(classes.tolist()),
        split=np.array(split),
        camera=None,
        source=FileSource(tuple(f"{base}/{path}" for path in paths)),
    )


def _first(root: Path, names: list[str]) -> Path:
    for name in names:
        if (root / name).exists():
            return root / name
    raise CompatError(
        f"The folder {root} holds neither {names[0]} nor {names[1]}: ask for the set at {PAGE} and "
        "unpack it there."
    )
