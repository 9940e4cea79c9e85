"""Which images train, which choose (validation) and which are reported on (test)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compat.data.images import ImageSet
from compat.errors import CompatError

By = Literal["class", "image"]

_FEWEST_CLASSES = 2


@dataclass(frozen=True)
class Retrieval:
    """Queries and gallery of one evaluation: int64 positions within the image set."""

    queries: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True)
class Splits:
    """The three parts of an image set; `train` holds int64 positions."""

    train: np.ndarray
    val: Retrieval
    test: Retrieval


def drawn_by(images: ImageSet, by: By | None = None) -> By:
    """What a split draws: what is asked for, else classes where there are labels, else images."""
    return by or ("class" if images.labelled else "image")


def split(
    images: ImageSet,
    *,
    val: float = 0.15,
    test: float = 0.25,
    seed: int = 0,
    by: By | None = None,
) -> Splits:
    """Divides an image set for training, selection and report.

    Without a published split, by class: classes are drawn for each part, and every image of the
    validation and test classes is a query against all others of its part (it leaves its own
    ranking later, by id). Images without a label take no part. By image: validation and test
    queries are drawn from all images, all others train, and queries search all images but
    themselves, as in a gallery that exists. The part of an image depends on its id and the seed
    alone, so that images that come or go later move no other.

    A published split is kept. Its test images are its query and gallery rows. Where it has train
    rows but no val rows, validation classes are drawn from the train classes.

    A published split of query and gallery rows alone is the seen-class protocol (the hashing
    papers' CIFAR-10): the gallery is what one trains on, so all classes are seen. Validation
    repeats the protocol inside the gallery: the share `val` of each class's gallery images
    become queries, are not trained on, and search the rest, which is the train part.

    What a published split leaves to draw is drawn by image too, where that is asked for: of the
    train rows, or else of the gallery rows, validation queries that search all of these.

    A set with ground-truth lists (revisitop) is a test part only; train and val are empty.

    Args:
        images: The set to divide.
        val: Share of the classes for validation: of all classes, or of the train classes of a
            published split (of the images, in the seen-class protocol and by image).
        test: Share of the classes, or images, for the test part; unused with a published split.
        seed: Of what is drawn.
        by: What is drawn: "class" or "image", as `drawn_by` says when None.

    Raises:
        CompatError: A share is out of range, or a part would have no image or, where classes are
            drawn, fewer than 2 classes.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise CompatError(
            f"The validation share is {val} and the test share {test}, expected both above 0 and "
            "their sum below 1."
        )
    if images.split is not None:
        return _published(images, images.split, val, seed, drawn_by(images, by))
    if drawn_by(images, by) == "image":
        return _drawn_images(images, val, test, seed)
    return _drawn(images, val, test, np.random.default_rng(seed))


def _drawn(images: ImageSet, val: float, test: float, random: np.random.Generator) -> Splits:
    classes = np.unique(images.labels[images.labels >= 0])
    shuffled = random.permutation(classes)
    test_count, val_count = round(test * len(classes)), round(val * len(classes))
    parts = {
        "test": shuffled[:test_count],
        "validation": shuffled[test_count : test_count + val_count],
        "train": shuffled[test_count + val_count :],
    }
    for name, part in parts.items():
        if len(part) < _FEWEST_CLASSES:
            raise CompatError(
                f"{images.name}: of {len(classes)} classes the {name} part would get {len(part)}, "
                f"expected at least {_FEWEST_CLASSES}: add classes or change the shares "
                f"(validation {val}, test {test})."
            )
    return Splits(
        _of_classes(images, parts["train"]),
        _each_other(_of_classes(images, parts["validation"])),
        _each_other(_of_classes(images, parts["test"])),
    )


def _drawn_images(images: ImageSet, val: float, test: float, seed: int) -> Splits:
    place = _places(images, seed)
    parts = {
        "test": np.flatnonzero(place < test),
        "validation": np.flatnonzero((place >= test) & (place < test + val)),
        "train": np.flatnonzero(place >= test + val),
    }
    for name, part in parts.items():
        if not len(part):
            raise CompatError(
                f"{images.name}: of {len(images)} images none would be in the {name} part: add "
                f"images or change the shares (validation {val}, test {test})."
            )
    everything = np.arange(len(images))
    return Splits(
        parts["train"],
        Retrieval(parts["validation"], everything),
        Retrieval(parts["test"], everything),
    )


def _places(images: ImageSet, seed: int) -> np.ndarray:
    """A uniform number of 0 to 1 per image, by its id and the seed alone; float64 (N,)."""
    digests = (hashlib.sha256(f"{seed} {name}".encode()).digest() for name in images.ids.tolist())
    return np.array([int.from_bytes(digest[:8]) / 2**64 for digest in digests])


def _published(images: ImageSet, published: np.ndarray, val: float, seed: int, by: By) -> Splits:
    rows = {name: np.flatnonzero(published == name) for name in np.unique(published)}
    none = np.array([], dtype=np.int64)
    both = rows.get("", none)
    found = Retrieval(
        np.sort(np.concatenate([rows.get("query", none), both])),
        np.sort(np.concatenate([rows.get("gallery", none), both])),
    )
    for name, part in (("query", found.queries), ("gallery", found.gallery)):
        if not len(part):
            raise CompatError(
                f"{images.name}: the published split has no {name} images, only "
                f"{sorted(map(str, rows))}: mark some as {name}, or as test for both."
            )
    if images.lists is not None:
        return Splits(none, Retrieval(none, none), found)
    train, chosen = rows.get("train", none), rows.get("val", none)
    random = np.random.default_rng(seed)
    if len(train) and len(chosen):
        return Splits(train, _each_other(chosen), found)
    if by == "image":
        searched = train if len(train) else rows.get("gallery", none)
        if not len(chosen):
            chosen = searched[_places(images, seed)[searched] < val]
        return _held_out_images(images, searched, chosen, found)
    if len(train):
        return _validation_classes(images, train, found, val, random)
    return _seen_classes(images, rows.get("gallery", none), chosen, found, val, random)


def _held_out_images(
    images: ImageSet, searched: np.ndarray, chosen: np.ndarray, found: Retrieval
) -> Splits:
    rest = np.setdiff1d(searched, chosen)
    if not len(chosen) or not len(rest):
        raise CompatError(
            f"{images.name}: the published split's {len(searched)} train (or gallery) images give "
            f"{len(rest)} for training and {len(chosen)} for validation: mark train and val rows."
        )
    return Splits(rest, Retrieval(chosen, searched), found)


def _validation_classes(
    images: ImageSet,
    train: np.ndarray,
    found: Retrieval,
    val: float,
    random: np.random.Generator,
) -> Splits:
    classes = np.unique(images.labels[train])
    shuffled = random.permutation(classes[classes >= 0])
    count = round(val * len(shuffled))
    if min(count, len(shuffled) - count) < _FEWEST_CLASSES:
        raise CompatError(
            f"{images.name}: a validation share of {val} takes {count} of the {len(shuffled)} "
            f"train classes, expected {_FEWEST_CLASSES} or more on both sides: mark val rows in "
            "the split or change the share."
        )
    drawn = np.isin(images.labels[train], shuffled[:count])
    return Splits(train[~drawn], _each_other(train[drawn]), found)


def _seen_classes(
    images: ImageSet,
    gallery: np.ndarray,
    chosen: np.ndarray,
    found: Retrieval,
    val: float,
    random: np.random.Generator,
) -> Splits:
    if not len(chosen):
        labels = images.labels[gallery]
        held_out = [
            random.permutation(gallery[labels == label])[: round(val * np.sum(labels == label))]
            for label in np.unique(labels[labels >= 0])
        ]
        chosen = np.sort(np.concatenate([np.array([], dtype=np.int64), *held_out]))
    train = np.setdiff1d(gallery[images.labels[gallery] >= 0], chosen)
    if not len(chosen) or not len(train):
        raise CompatError(
            f"{images.name}: the published split has no train rows, and its {len(gallery)} gallery "
            f"images give {len(train)} for training and {len(chosen)} for validation: mark train "
            "and val rows, or label more gallery images."
        )
    return Splits(train, Retrieval(chosen, train), found)


def _of_classes(images: ImageSet, classes: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(images.labels, classes))


def _each_other(rows: np.ndarray) -> Retrieval:
    return Retrieval(rows, rows)
