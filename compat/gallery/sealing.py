"""Turning a working folder of vectors into a gallery space, all at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from compat.data.store import write_json
from compat.errors import CompatError
from compat.gallery.codes import Coder, ProductCoder, wrap
from compat.gallery.manifest import MANIFEST, Description, Manifest, StoredFile, Views
from compat.gallery.space import (
    CENTROIDS,
    CLASSIFIER,
    CODES,
    IDS,
    LABELS,
    ROTATION,
    VECTORS,
    VIEW_CODES,
    VIEW_ROWS,
    VIEW_VECTORS,
    GallerySpace,
    encode_ids,
    file_hash,
    fingerprint,
)
from searchspaces.support.errors import reason

PROGRESS = "progress.json"  # in the folder of an unfinished build
DTYPES = ("float32", "float16")


def check_absent(out: Path) -> None:
    """Raise CompatError when ``out`` exists already, or when there can be no such folder."""
    with _writing(out):
        exists = out.exists()
    if exists:
        raise CompatError(f"{out} exists already: choose another folder or remove it.")


def working_folder(out: Path) -> Path:
    """Where a gallery grows before it gets its name ``out``; made if it is not there.

    Raises:
        CompatError: When ``out`` exists already or cannot be made.
    """
    check_absent(out)
    with _writing(out):
        folder = out.with_name(f"{out.name}.partial")
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise CompatError(
            f"The folder {out} cannot be written ({reason(error)}): choose another one."
        ) from error


def fresh_folder(out: Path) -> Path:
    """`working_folder`, empty: what a killed run left in it is removed, unless it can be resumed.

    Raises:
        CompatError: When ``out`` exists, or its working folder holds an unfinished build or
            anything that is not of a gallery.
    """
    folder = working_folder(out)
    leftovers = list(folder.iterdir())
    if folder / PROGRESS in leftovers:
        raise CompatError(f"{folder} is an unfinished build: finish it, or remove the folder.")
    strange = [file.name for file in leftovers if file.suffix != ".npy" and file.name != MANIFEST]
    if strange:
        raise CompatError(
            f"{folder} holds {strange[0]!r}, which is no part of an unfinished gallery {out}: "
            "remove that folder, or choose another one to write."
        )
    for file in leftovers:
        file.unlink()
    return folder


def check_dtype(dtype: str) -> None:
    """Raise CompatError unless vectors may be stored as ``dtype``."""
    if dtype not in DTYPES:
        raise CompatError(f"Vectors cannot be stored as {dtype!r}: use 'float32' or 'float16'.")


def seal(
    folder: Path,
    out: Path,
    *,
    ids: Sequence[str] | np.ndarray,
    labels: np.ndarray | None,
    classifier: np.ndarray | None,
    description: Description,
    coder: Coder | None = None,
    learned: Mapping[str, np.ndarray] | None = None,
) -> GallerySpace:
    """Describe the vectors in ``folder`` (and views, if any), then rename it to ``out``.

    Args:
        ids, labels, classifier: See `GallerySpace`.
        description: What else is known of the vectors.
        coder: Of the codes in ``folder``; None when it holds vectors.
        learned: Further arrays to keep beside the vectors, by file name.

    Raises:
        CompatError: When two images have one id.
    """
    encoded = encode_ids(ids)
    check_unique(encoded)
    np.save(folder / IDS, encoded)
    if labels is not None:
        np.save(folder / LABELS, np.asarray(labels, dtype=np.int64))
    if classifier is not None:
        np.save(folder / CLASSIFIER, np.asarray(classifier, dtype=np.float32))
    arrays = dict(learned or {})
    if isinstance(coder, ProductCoder):
        arrays[CENTROIDS] = coder.centroids
        if coder.rotation is not None:
            arrays[ROTATION] = coder.rotation
    for name, array in arrays.items():
        np.save(folder / name, array)
    stored = np.load(folder / (CODES if coder else VECTORS), mmap_mode="r", allow_pickle=False)
    vectors = wrap(stored, coder) if coder else stored
    views = None
    if description.view_recipe is not None:
        rows = np.load(folder / VIEW_ROWS, mmap_mode="r", allow_pickle=False)
        views = Views(count=description.view_recipe.count, rows=len(rows))
    names = [VECTORS, CODES, *arrays, IDS, LABELS, CLASSIFIER, VIEW_ROWS, VIEW_VECTORS, VIEW_CODES]
    present = [folder / name for name in names if (folder / name).exists()]
    manifest = Manifest(
        version=Manifest.NEWEST,
        **dict(description),
        count=len(vectors),
        dimension=vectors.shape[1],
        dtype=vectors.dtype.name,
        codes=coder.kind if coder else None,
        fingerprint=fingerprint(description.metric, vectors, encoded),
        views=views,
        files={
            file.name: StoredFile(bytes=file.stat().st_size, sha256=file_hash(file))
            for file in present
        },
    )
    write_json(folder / MANIFEST, manifest)
    os.replace(folder, out)
    return GallerySpace.open(out)


def check_unique(encoded: np.ndarray) -> None:
    """Raise CompatError when two images have one id."""
    names, first, counts = np.unique(encoded, return_index=True, return_counts=True)
    if len(names) != len(encoded):
        row = int(first[counts > 1].min())
        again = int(np.flatnonzero(encoded == encoded[row])[1])
        raise CompatError(
            f"The id {encoded[row].decode()!r} stands in rows {row} and {again}: ids must be "
            "unique; rename or remove one."
        )
