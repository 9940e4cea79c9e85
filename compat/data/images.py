"""A set of images as every part of querynas sees it: names, labels and a way to load each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from compat.errors import CompatError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from PIL import Image

_LONGEST = 4096  # bytes of an id or a class, as of a path
SPLITS = ("", "train", "val", "query", "gallery")


class ImageSource(Protocol):
    """Loads images by position; picklable, so that it can travel to another process."""

    def load(self, index: int) -> Image.Image:
        """The upright, box-cropped RGB image; raises `BrokenImageError` if it cannot be read."""

    def digest(self, index: int) -> str:
        """Hash (hex) of the image's content, the same wherever its file lies."""

    def stamp(self, index: int) -> str:
        """Cheap text that changes whenever the content may have: digests are remembered by it."""


@dataclass(frozen=True)
class RelevanceLists:
    """Explicit ground truth: for each query, positions within the gallery part.

    Args:
        positives: One int64 array per query: what has to be found.
        junk: One int64 array per query: what leaves the ranking before it is measured.
    """

    positives: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class ImageSet:
    """Images with their names, labels and published split.

    Args:
        name: Short name of the set.
        spec: The text that `open_data` turns into this set again; a subset keeps its parent's.
        ids: (N,) str, unique: posix path relative to the root, or a rendered image's name.
        labels: (N,) int64 index into `classes`, -1 for none.
        classes: Names of the classes.
        split: (N,) str, or None without a published split. "train", "val", "query" and "gallery"
            say what they mean; "" is a test image that is a query and a gallery image at once.
        camera: (N,) int64, -1 for unknown; None if no image has one.
        source: Loads the images, in the same order.
        lists: Explicit ground truth by protocol ("easy", "medium", "hard"); its queries and
            gallery are the rows of that split, in order.

    Raises:
        CompatError: An array has the wrong length, an id occurs twice or a value is unknown.
    """

    name: str
    spec: str
    ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    split: np.ndarray | None
    camera: np.ndarray | None
    source: ImageSource
    lists: Mapping[str, RelevanceLists] | None = None

    def __post_init__(self) -> None:
        count = len(self.ids)
        for field in ("labels", "split", "camera"):
            values = getattr(self, field)
            if values is not None and values.shape != (count,):
                raise CompatError(
                    f"{self.spec}: {field} has shape {values.shape}, expected ({count},) to match "
                    f"the {count} ids."
                )
        for text in (*self.ids.tolist(), *self.classes):
            if not is_text(text):
                raise CompatError(
                    f"{self.spec}: the name {text!r} cannot be written as UTF-8 text: rename it."
                )
        names, counts = np.unique(self.ids, return_counts=True)
        if len(names) != count:
            twice = names[counts > 1][0]
            raise CompatError(f"{self.spec}: the id '{twice}' occurs twice; ids must be unique.")
        if count and not -1 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise CompatError(
                f"{self.spec}: labels span {self.labels.min()} to {self.labels.max()}, expected -1 "
                f"(none) to {len(self.classes) - 1}, the last of {len(self.classes)} classes."
            )
        unknown = set() if self.split is None else set(self.split.tolist()) - set(SPLITS)
        if unknown:
            raise CompatError(f"{self.spec}: split holds {sorted(unknown)}, expected {SPLITS}.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool((self.labels >= 0).any())

    def take(self, indices: ArrayLike) -> ImageSet:
        """The images at these positions, in this order; ground-truth lists follow."""
        rows = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            split=None if self.split is None else self.split[rows],
            camera=None if self.camera is None else self.camera[rows],
            source=_taken(self.source, rows),
            lists=None if self.lists is None else self._lists_of(rows),
        )

    def _lists_of(self, rows: np.ndarray) -> Mapping[str, RelevanceLists]:
        assert self.split is not None
        assert self.lists is not None
        queries = _positions(self.split == "query", rows)
        gallery = _positions(self.split == "gallery", rows)
        moved = np.full(np.count_nonzero(self.split == "gallery"), -1)
        moved[gallery] = np.arange(len(gallery))

        def follow(lists: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            kept = (moved[lists[query]] for query in queries)
            return tuple(np.sort(new[new >= 0]) for new in kept)

        return {
            name: RelevanceLists(follow(lists.positives), follow(lists.junk))
            for name, lists in self.lists.items()
        }


def is_text(text: str) -> bool:
    """Whether UTF-8 files can hold a name, and numpy's arrays of text give it back as it is."""
    try:
        return "\0" not in text and len(text.encode()) <= _LONGEST
    except UnicodeEncodeError:  # the name of a file in another encoding
        return False


def _positions(part: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where those of `rows` that belong to `part` (N,) bool stand within it, in order."""
    return (np.cumsum(part) - 1)[rows[part[rows]]]


@dataclass(frozen=True)
class _TakenSource:
    source: ImageSource
    rows: np.ndarray

    def load(self, index: int) -> Image.Image:
        return self.source.load(int(self.rows[index]))

    def digest(self, index: int) -> str:
        return self.source.digest(int(self.rows[index]))

    def stamp(self, index: int) -> str:
        return self.source.stamp(int(self.rows[index]))


def _taken(source: ImageSource, rows: np.ndarray) -> ImageSource:
    if isinstance(source, _TakenSource):
        return _TakenSource(source.source, source.rows[rows])
    return _TakenSource(source, rows)
