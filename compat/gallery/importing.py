"""Gallery vectors that somebody else computed, streamed into a gallery space."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from compat.errors import CompatError
from compat.gallery.manifest import Description
from compat.gallery.sealing import check_dtype, check_unique, fresh_folder, seal
from compat.gallery.space import VECTORS, GallerySpace, check_vectors, encode_ids
from compat.gallery.vector_files import open_vectors
from searchspaces.support.reading import read_text

_MOST_BYTES = 1 << 32  # of a file of ids


def import_gallery(
    vectors: str | Path,
    out: str | Path,
    *,
    ids: Sequence[str] | np.ndarray | Path | None = None,
    labels: np.ndarray | Sequence[int] | None = None,
    metric: Literal["cosine", "ip"] = "cosine",
    dtype: str = "float32",
) -> GallerySpace:
    """Make a gallery space of stored vectors; rows get length one when the metric is cosine.

    Args:
        vectors: ``.npy`` (N, d); ``.npz`` with ``vectors`` and optionally ``ids`` and ``labels``;
            ``.parquet`` with columns ``id`` and ``vector``; or a faiss index (``.faiss``,
            ``.index``, ``.idx``) that can reconstruct its vectors.
        out: New folder.
        ids: (N,) unique ids, or a text file with one per line; by default those in ``vectors``,
            or else the row numbers.
        labels: (N,) integers, -1 for none.
        metric: How the vectors are compared.
        dtype: ``float32`` or ``float16`` on disk.

    Raises:
        CompatError: When the file cannot be read as such vectors, lengths differ, an id occurs
            twice, or a vector is zero or not finite (names the first row).
    """
    check_dtype(dtype)
    if metric not in ("cosine", "ip"):
        raise CompatError(f"Unknown metric {metric!r}: use 'cosine' or 'ip' (inner product).")
    path, out = Path(vectors), Path(out)
    source = open_vectors(path)
    count = source.shape[0]
    names = _ids(ids, source.ids, count, path)
    numbers = _labels(source.labels if labels is None else labels, count, path)

    folder = fresh_folder(out)
    try:
        target = np.lib.format.open_memmap(
            folder / VECTORS, mode="w+", dtype=dtype, shape=source.shape
        )
        start = 0
        with (
            np.errstate(over="ignore", invalid="ignore", divide="ignore"),  # found by the checks
            tqdm(total=count, desc="importing vectors", unit="vectors") as bar,
        ):
            for block in source.blocks:
                rows = np.asarray(block, dtype=np.float32)
                check_vectors(rows, f"{path}:", start)
                if metric == "cosine":
                    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
                stored = rows.astype(dtype, copy=False)
                check_vectors(stored, f"{path}: as {dtype} of metric {metric},", start)
                target[start : start + len(rows)] = stored
                start += len(rows)
                bar.update(len(rows))
        target.flush()
        return seal(
            folder,
            out,
            ids=names,
            labels=numbers,
            classifier=None,
            description=Description(metric=metric),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already when sealed


def _ids(
    given: Sequence[str] | np.ndarray | Path | None, stored: Any, count: int, path: Path
) -> np.ndarray:
    if isinstance(given, Path):
        text = read_text(given, error=CompatError, remedy="check the path", at_most=_MOST_BYTES)
        return _ids(text.splitlines(), None, count, given)
    values = stored if given is None else given
    if values is None:
        return np.arange(count).astype(str)
    _check_length(values, "ids", count, path)
    try:
        if isinstance(values, list):  # before numpy drops zero bytes at the end of an id
            encode_ids(values)
        names = np.asarray(values, dtype=str)
        check_unique(encode_ids(names))
    except (ValueError, TypeError) as error:
        raise CompatError(f"The ids in {path} cannot be used: {error}") from error
    return names


def _labels(values: Any, count: int, path: Path) -> np.ndarray | None:
    if values is None:
        return None
    _check_length(values, "labels", count, path)
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= 2**31:
        raise CompatError(
            f"The labels for {path} are {labels.dtype}, expected whole numbers from -1 (none) to "
            f"{2**31 - 1}: number the classes."
        )
    return labels.astype(np.int64)


def _check_length(values: Any, what: str, expected: int, path: Path) -> None:
    shape = np.shape(values)
    if shape != (expected,):
        found = f"{shape[0]} {what}" if len(shape) == 1 else f"{what} of shape {shape}"
        raise CompatError(
            f"There are {found} for the {expected} vectors in {path}: give one per vector."
        )
