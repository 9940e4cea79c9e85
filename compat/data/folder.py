"""A folder per class or one flat folder, with a second such folder of queries if there is one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from compat.data.files import FileSource
from compat.data.images import ImageSet
from compat.data.opening import SUFFIXES
from compat.errors import CompatError
from searchspaces.support.naming import did_you_mean


def open_folder(path: Path, *, queries: Path | None = None) -> ImageSet:
    """Reads `path/<class>/<image>`, or `path/<image>` without labels where there are no folders.

    Args:
        path: Folder of class folders, or of images.
        queries: Folder of class folders whose names occur in `path`, or of images; its images
            become the queries and those of `path` the gallery. Their ids start with "queries/".

    Raises:
        CompatError: A folder is missing, holds neither class folders nor images, a class is empty
            or (without `queries`) has a single image, or a query class has no gallery class.
    """
    root = path.resolve()
    gallery = _images_by_class(root)
    if queries is None:
        for name, files in gallery.items():
            if name and len(files) == 1:
                raise CompatError(
                    f"The class '{name}' in {root} has one image, so a query from it could find "
                    "nothing: add images or remove the class."
                )
        return _image_set(root.name, str(root), root, gallery)
    query_root = queries.resolve()
    asked = _images_by_class(query_root)
    if ("" in asked) != ("" in gallery):
        raise CompatError(
            f"Only one of {root} and {query_root} has class folders: give both of them some, or "
            "neither."
        )
    for name in asked:
        if name not in gallery:
            raise CompatError(
                f"The query class '{name}' in {query_root} has no folder of that name in {root}"
                f"{did_you_mean(name, gallery)}: rename it or add its gallery images."
            )
    return _image_set(root.name, f"{root},queries={query_root}", root, gallery, query_root, asked)


def _images_by_class(root: Path) -> dict[str, list[str]]:
    """File names by class; all of a flat folder under the name "", which is no class."""
    if not root.is_dir():
        raise CompatError(
            f"There is no folder {root}: give one that holds images, or a folder of them per class."
        )
    names = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith((".", "__"))
    )
    if names:
        return {name: _of_class(root / name) for name in names}
    loose = _images(root)
    if not loose:
        raise CompatError(
            f"The folder {root} holds neither images nor class folders: put images into it, or "
            "those of each class into a folder of its own."
        )
    return {"": loose}


def _images(folder: Path) -> list[str]:
    """Names of image files; links to devices and to nothing too, which decoding will name."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not entry.name.startswith(".")
        and os.path.splitext(entry.name)[1].lower() in SUFFIXES
        and not entry.is_dir()
    )


def _of_class(folder: Path) -> list[str]:
    found = _images(folder)
    if not found:
        inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        hint = (
            f"it holds folders such as '{inside[0]}', so perhaps {folder} is the folder to open"
            if inside
            else "add images or remove the folder"
        )
        raise CompatError(f"The class '{folder.name}' in {folder.parent} has no images: {hint}.")
    return found


def _image_set(
    name: str,
    spec: str,
    root: Path,
    gallery: dict[str, list[str]],
    query_root: Path | None = None,
    asked: dict[str, list[str]] | None = None,
) -> ImageSet:
    classes = tuple(name for name in gallery if name)
    parts = [("", "gallery", root, gallery)]
    if query_root is not None and asked is not None:
        parts.insert(0, ("queries/", "query", query_root, asked))
    ids: list[str] = []
    paths: list[str] = []
    labels: list[int] = []
    split: list[str] = []
    number = {label: index for index, label in enumerate(classes)} | {"": -1}
    for prefix, part, folder, images in parts:
        for label, files in images.items():
            ids += [prefix + os.path.join(label, file) for file in files]
            paths += [os.path.join(folder, label, file) for file in files]
            labels += [number[label]] * len(files)
            split += [part] * len(files)
    return ImageSet(
        name=name,
        spec=spec,
        ids=np.array(ids),
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        split=None if query_root is None else np.array(split),
        camera=None,
        source=FileSource(tuple(paths)),
    )
