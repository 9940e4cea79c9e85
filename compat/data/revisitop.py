"""Revisited Oxford and Paris (Radenović et al., CVPR 2018): ground truth and images."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compat.data.files import FileSource
from compat.data.images import ImageSet, RelevanceLists
from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.reading import read_bytes

_MOST_BYTES = 64 << 20

# Which of a query's lists count as found and which leave the ranking: section 2 of the paper.
_PROTOCOLS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


@dataclass(frozen=True)
class GroundTruth:
    """Contents of a gnd_*.pkl file.

    Args:
        queries: Names of the query images, without suffix.
        gallery: Names of the database images, without suffix.
        boxes: (queries, 4) float64: x0 y0 x1 y1 of the query region, in pixels.
        lists: "easy", "medium" and "hard", as positions within `gallery`.
    """

    queries: tuple[str, ...]
    gallery: tuple[str, ...]
    boxes: np.ndarray
    lists: Mapping[str, RelevanceLists]


def open_revisitop(gnd: Path, images: Path) -> ImageSet:
    """Queries (cropped to their boxes) and gallery of revisited Oxford or Paris.

    Args:
        gnd: gnd_roxford5k.pkl or gnd_rparis6k.pkl.
        images: Folder of `<name>.jpg`.

    Raises:
        CompatError: A file is missing, or the ground truth is not one.
    """
    truth = read_ground_truth(gnd)
    folder = images.resolve()
    if not folder.is_dir():
        raise CompatError(f"There is no folder {folder}: give the folder of the set's .jpg images.")
    names = truth.queries + truth.gallery
    here = {file.name for file in folder.iterdir()}
    missing = [name for name in names if f"{name}.jpg" not in here]
    if missing:
        raise CompatError(
            f"The folder {folder} lacks {len(missing)} of the {len(names)} images that {gnd.name} "
            f"names, first '{missing[0]}.jpg': unpack the set's images there."
        )
    boxes = np.full((len(names), 4), np.nan)
    boxes[: len(truth.queries)] = truth.boxes
    ids = [f"queries/{name}.jpg" for name in truth.queries]
    ids += [f"{name}.jpg" for name in truth.gallery]
    return ImageSet(
        name=gnd.stem.removeprefix("gnd_"),
        spec=f"revisitop:gnd={gnd.resolve()},images={folder}",
        ids=np.array(ids),
        labels=np.full(len(names), -1, dtype=np.int64),
        classes=(),
        split=np.repeat(["query", "gallery"], [len(truth.queries), len(truth.gallery)]),
        camera=None,
        source=FileSource(tuple(f"{folder}/{name}.jpg" for name in names), boxes),
        lists=truth.lists,
    )


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads a gnd_*.pkl without running anything that it may contain.

    The one pickle that querynas reads, because the protocol is published as one. Only lists,
    dicts, text, numbers and numpy arrays are admitted.

    Raises:
        CompatError: The file is missing, asks for anything else, or is no ground truth.
    """
    remedy = "give the published gnd_roxford5k.pkl or gnd_rparis6k.pkl"
    stored = read_bytes(path, at_most=_MOST_BYTES, error=CompatError, remedy=remedy)
    try:
        _check_memory(stored)
        content = _PlainUnpickler(io.BytesIO(stored)).load()
    except _NotPlainError as error:
        raise CompatError(
            f"The ground truth {path} asks for {error}, which plain lists and numbers do not "
            "need: do not trust this file, fetch the published one."
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise CompatError(
            f"The ground truth {path} is damaged ({reason(error)}): fetch it again."
        ) from error
    try:
        return _parsed(content)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise CompatError(
            f"The file {path} is not a revisitop ground truth ({reason(error)}): expected imlist, "
            "qimlist and gnd with bbx, easy, hard and junk of every query."
        ) from error


class _NotPlainError(Exception):
    """A pickle asks for something that may run."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")  # as numpy 2 calls it
        if (module, name) not in _ADMITTED:
            raise _NotPlainError(f"{module}.{name}")
        return _ADMITTED[module, name]


def _check_memory(stored: bytes) -> None:
    """Refuse numbers of the unpickler's memory that are larger than the pickle could need."""
    for operation, argument, _ in pickletools.genops(stored):
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(stored):
            raise ValueError(f"it asks for {argument:,} places of memory")


def _latin1(text: str, encoding: str) -> bytes:
    """How pickles of before protocol 3 write bytes, and nothing else that codecs can do."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin1")


def _dtype(name: str, *_: bool) -> np.dtype[Any]:
    """A type of numbers by its name; what else a type's name may say is not needed."""
    if not re.fullmatch(r"[biufSUO][0-9]{0,3}", name):
        raise ValueError(f"numbers of the type {name[:20]!r}")
    return np.dtype(name)


def _array(kind: object, shape: tuple[int, ...], code: object) -> np.ndarray:
    """The empty array that a pickle fills afterwards, which no pickle asks for in another shape."""
    if shape != (0,):
        raise ValueError(f"an array of shape {shape}")
    return np.empty(0, dtype="i1")


def _scalar(dtype: np.dtype[Any], stored: bytes) -> Any:
    return np.frombuffer(stored, dtype)[0]


# What rebuilds a numpy array or scalar from a pickle; each does that and no more.
_ADMITTED: Mapping[tuple[str, str], str | Callable[..., Any]] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _latin1,
}


def _parsed(content: Any) -> GroundTruth:
    queries, gallery = _names(content["qimlist"]), _names(content["imlist"])
    entries: Sequence[Mapping[str, Any]] = content["gnd"]
    if len(entries) != len(queries):
        raise ValueError(f"{len(queries)} queries but {len(entries)} entries")
    boxes = np.array([_numbers(entry["bbx"], np.float64) for entry in entries])
    if boxes.shape != (len(queries), 4):
        raise ValueError(f"boxes of shape {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError("a box that is not finite")

    def merged(entry: Mapping[str, Any], keys: Sequence[str]) -> np.ndarray:
        rows = np.concatenate([_numbers(entry[key], np.int64) for key in keys])
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(gallery):
            raise ValueError(f"position {rows.max()} of {len(gallery)} gallery images")
        return np.unique(rows)

    lists = {
        protocol: RelevanceLists(
            tuple(merged(entry, positive) for entry in entries),
            tuple(merged(entry, junk) for entry in entries),
        )
        for protocol, (positive, junk) in _PROTOCOLS.items()
    }
    return GroundTruth(queries, gallery, boxes, lists)


def _names(values: Any) -> tuple[str, ...]:
    names = tuple(values)
    if not all(isinstance(name, str) for name in names):  # str() of nested lists may never end
        raise ValueError("a name that is no text")
    return tuple(str(name) for name in names)


def _numbers(values: Any, dtype: type[np.number[Any]]) -> np.ndarray:
    """A list or an array of numbers, flat; lists in lists may stand for billions."""
    if not isinstance(values, np.ndarray | np.generic):
        values = list(values)
        if not all(isinstance(value, int | float | np.number) for value in values):
            raise ValueError("a list of other things than numbers")
    elif values.dtype.kind not in "iuf":
        raise ValueError(f"an array of {values.dtype}")
    return np.asarray(values, dtype=dtype).ravel()
