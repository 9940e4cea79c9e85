"""Which images train, which choose (validation) and which are reported on (test)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compat.data.images import ImageSet
from compat.errors import CompatError

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


def split(images: ImageSet, *, val: float = 0.15, test: float = 0.25, seed: int = 0) -> Splits:
    """Divides an image set for training, selection and report.

    Without a published split, classes are drawn for each part, and every image of the validation
    and test classes is a query against all others of its part (it leaves its own ranking later,
    by id). Images without a label take no part.

    A published split is kept. Its test images are its query and gallery rows. Where it has train
    rows but no val rows, validation classes are drawn from the train classes.

    A published split of labelled query and gallery rows alone is the seen-class protocol (the
    hashing papers' CIFAR-10): the gallery is what one trains on, so all classes are seen.
    Validation repeats the protocol inside the gallery: the share `val` of each class's gallery
    images become queries, are not trained on, and search the rest, which is the train part.

    A set with ground-truth lists (revisitop) is a test part only; train and val are empty.

    Args:
        images: The set to divide.
        val: Share of the classes for validation: of all classes, or of the train classes of a
            published split (of the images, in the seen-class protocol).
        test: Share of the classes for the test part; unused with a published split.
        seed: Draws the classes.

    Raises:
        CompatError: A share is out of range, or a part would have no image or, where classes are
            drawn, fewer than 2 classes.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise CompatError(
            f"The validation share is {val} and the test share {test}, expected both above 0 and "
            "their sum below 1."
        )
    random = np.random.default_rng(seed)
    if images.split is None:
        return _drawn(images, val, test, random)
    return _published(images, images.split, val, random)


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


def _published(
    images: ImageSet, published: np.ndarray, val: float, random: np.random.Generator
) -> Splits:
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
    if len(train):
        if len(chosen):
            return Splits(train, _each_other(chosen), found)
        return _validation_classes(images, train, found, val, random)
    return _seen_classes(images, rows.get("gallery", none), chosen, found, val, random)


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
