"""The vectors that galleries hold of the training images, to learn a new gallery side from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from compat.errors import CompatError
from compat.gallery.codes import SignCoder
from compat.gallery.deriving import derive_gallery
from compat.gallery.space import GallerySpace, check_vectors


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """Training images, and their views where there are any, as one or more galleries have them.

    Attributes:
        spaces: The galleries; the first one names images and classes.
        features: Vectors by gallery, float32 (M, d_i) of length one. The first N rows are the
            images, then comes view after view.
        labels: (M,) int64 class numbers, 0 to C - 1.
        classes: (C,) int64 label of each class in the first gallery.
        images: N.
    """

    spaces: tuple[GallerySpace, ...]
    features: tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: np.ndarray
    images: int

    def means(self) -> np.ndarray:
        """(C, Σ d_i) float32: mean of the images of each class, the galleries side by side."""
        rows = np.hstack([features[: self.images] for features in self.features])
        sums = np.zeros((len(self.classes), rows.shape[1]), dtype=np.float32)
        np.add.at(sums, self.labels[: self.images], rows)
        return sums / np.bincount(self.labels[: self.images])[:, None]

    def derive(
        self,
        out: str | Path,
        transform: Callable[..., np.ndarray],
        *,
        weights: np.ndarray,
        bits: int | None = None,
        derivation: Mapping[str, Any],
        learned: Mapping[str, np.ndarray],
    ) -> GallerySpace:
        """Write the gallery that ``transform`` makes of these; see `derive_gallery`.

        Args:
            weights: (C, d') weight vector of each training class; the gallery's classifier, with
                NaN rows for its other classes. Left out where the gallery does not name classes.
            bits: Number of signs to store instead of floats.
        """
        names = self.spaces[0].classes
        classifier = None
        if names:
            classifier = np.full((len(names), weights.shape[1]), np.nan, dtype=np.float32)
            classifier[self.classes] = weights
        return derive_gallery(
            self.spaces,
            out,
            transform,
            codes=None if bits is None else SignCoder(bits),
            metric="cosine" if bits is None else "hamming",
            derivation=derivation,
            classifier=classifier,
            learned=learned,
        )


def stored_vectors(
    spaces: Sequence[GallerySpace],
    train: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> StoredVectors:
    """Read the vectors of the labelled training images from every gallery.

    Args:
        spaces: Galleries of the same images.
        train: (n,) rows of the first gallery that are training images; those with views if None.
        labels: (n,) their labels; the first gallery's own if None.

    Raises:
        CompatError: When it is not known which images are for training or what they show, fewer
            than two classes are left, or the galleries do not hold the same images and views.
    """
    first = spaces[0]
    if train is None and first.view_recipe is None:
        raise CompatError(
            f"{first.path} holds no views, which would tell its training images: name the rows of "
            "the training images."
        )
    rows = first.view_rows if train is None else np.asarray(train, dtype=np.int64)
    if labels is None and first.labels is None:
        raise CompatError(f"{first.path} has no labels: give those of the training images.")
    named = np.asarray(first.labels)[rows] if labels is None else np.asarray(labels)
    if named.shape != rows.shape:
        raise CompatError(
            f"There are labels of shape {named.shape} for {len(rows)} training images: give one "
            "label per image."
        )
    rows, named = rows[named >= 0], named[named >= 0]
    classes, numbers = np.unique(named, return_inverse=True)
    if len(classes) < 2:
        raise CompatError(
            f"The {len(rows)} labelled training images are of {len(classes)} class, expected 2 "
            "classes or more: a gallery side learns to tell classes apart."
        )
    ids = first.ids[rows]
    views = 0 if first.view_recipe is None else first.view_recipe.alone
    return StoredVectors(
        spaces=tuple(spaces),
        features=tuple(_read(space, space.rows(ids), first) for space in spaces),
        labels=np.tile(numbers, 1 + views),
        classes=classes,
        images=len(rows),
    )


def _read(space: GallerySpace, rows: np.ndarray, first: GallerySpace) -> np.ndarray:
    """Vectors (M, d) of length one of the images in ``rows``, then those of their views."""
    blocks = [np.asarray(space.vectors[rows], dtype=np.float32)]
    if space.view_recipe != first.view_recipe or not (
        space.view_vectors is None or np.isin(rows, space.view_rows).all()
    ):
        raise CompatError(
            f"{space.path} and {first.path} hold views of other images, or other views, or not of "
            "all training images: build them with one --views, --seed, --val and --test, and name "
            "the same here."
        )
    if space.view_vectors is not None and space.view_recipe is not None:
        order = np.argsort(space.view_rows)
        places = order[np.searchsorted(space.view_rows, rows, sorter=order)]
        labelled = range(space.view_recipe.alone)  # mixed views are of two labels
        blocks += [np.asarray(space.view_vectors[v][places], np.float32) for v in labelled]
    stacked = np.concatenate(blocks)
    check_vectors(stacked, f"{space.path}: of the images to learn from, and their views,")
    unit: np.ndarray = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    return unit
