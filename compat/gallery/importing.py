"""Gallery vectors that somebody else computed, streamed into a gallery space."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from compat.errors import CompatError
from compat.gallery.sealing import check_dtype, fresh_folder, seal
from compat.gallery.space import VECTORS, GallerySpace, check_vectors
from searchspaces.support.naming import did_you_mean

_ROWS = 16_384  # read, checked and written at a time
_INDEXES = (".faiss", ".index", ".idx")


@dataclass(frozen=True)
class _Source:
    shape: tuple[int, int]
    blocks: Iterator[np.ndarray]
    ids: np.ndarray | None = None
    labels: np.ndarray | None = None


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
    source = _open(path)
    count = source.shape[0]
    if not count:
        raise CompatError(f"{path} holds no vectors: there is nothing to import.")
    names = _ids(ids, source.ids, count)
    classes = source.labels if labels is None else np.asarray(labels)
    _check_length(len(names), "ids", count, path)
    if classes is not None:
        _check_length(len(classes), "labels", count, path)

    folder = fresh_folder(out)
    try:
        target = np.lib.format.open_memmap(
            folder / VECTORS, mode="w+", dtype=dtype, shape=source.shape
        )
        start = 0
        with tqdm(total=count, desc="importing vectors", unit="vectors") as bar:
            for block in source.blocks:
                rows = np.asarray(block, dtype=np.float32)
                check_vectors(rows, f"{path}:", start)
                if metric == "cosine":
                    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
                target[start : start + len(rows)] = rows
                start += len(rows)
                bar.update(len(rows))
        target.flush()
        return seal(
            folder,
            out,
            ids=names,
            labels=classes,
            classes=(),
            classifier=None,
            metric=metric,
            model=None,
            model_digest=None,
            model_macs=None,
            preprocessing=None,
            data=None,
            view_recipe=None,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already when sealed


def _open(path: Path) -> _Source:
    if not path.is_file():
        raise CompatError(f"There is no vector file {path}: check the path.")
    readers = {".npy": _open_npy, ".npz": _open_npz, ".parquet": _open_parquet}
    readers |= dict.fromkeys(_INDEXES, _open_faiss)
    if path.suffix not in readers:
        raise CompatError(
            f"{path} has the ending {path.suffix!r}, expected one of {', '.join(readers)}."
        )
    try:
        return readers[path.suffix](path)
    except CompatError:
        raise
    except Exception as error:  # every format has its own errors for a damaged file
        raise CompatError(
            f"{path} cannot be read as {path.suffix} vectors ({error}): write it again."
        ) from error


def _open_npy(path: Path) -> _Source:
    return _of_matrix(np.load(path, mmap_mode="r", allow_pickle=False), path)


def _open_npz(path: Path) -> _Source:
    with np.load(path, allow_pickle=False) as archive:
        if "vectors" not in archive:
            raise CompatError(
                f"{path} has no array 'vectors'{did_you_mean('vectors', archive)}, only "
                f"{list(archive)}: rename it."
            )
        source = _of_matrix(archive["vectors"], path)
        ids = archive.get("ids")
        labels = archive.get("labels")
    return _Source(source.shape, source.blocks, ids, labels)


def _open_parquet(path: Path) -> _Source:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    columns = file.schema_arrow.names
    for name in ("id", "vector"):
        if name not in columns:
            raise CompatError(
                f"{path} has no column {name!r}{did_you_mean(name, columns)}, only {columns}: "
                "rename it."
            )
    count = file.metadata.num_rows
    ids = file.read(columns=["id"]).column("id").to_pylist()
    if None in ids:
        raise CompatError(f"{path} has no id in row {ids.index(None)}: give every row one.")
    first = next(file.iter_batches(batch_size=1, columns=["vector"]), None)
    dimension = len(first.column(0)[0].as_py() or ()) if first is not None else 0

    def blocks() -> Iterator[np.ndarray]:
        start = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=["vector"]):
            column = batch.column(0)
            lengths = np.asarray(column.value_lengths().fill_null(0))
            wrong = np.flatnonzero(lengths != dimension)
            if len(wrong):
                raise CompatError(
                    f"{path}: the vector in row {start + int(wrong[0])} has "
                    f"{lengths[wrong[0]]} numbers, expected {dimension} as in the first row."
                )
            yield column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
            start += len(column)

    return _Source((count, dimension), blocks(), np.array([str(name) for name in ids]))


def _open_faiss(path: Path) -> _Source:
    import faiss

    index = faiss.read_index(str(path))
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()
    count = index.ntotal
    if count:
        index.reconstruct_n(0, 1)  # fails here, before anything is written, if it cannot

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, count, _ROWS):
            yield index.reconstruct_n(start, min(_ROWS, count - start))

    return _Source((count, index.d), blocks())


def _of_matrix(matrix: np.ndarray, path: Path) -> _Source:
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise CompatError(
            f"{path} holds an array of shape {matrix.shape} and type {matrix.dtype}, expected "
            "floating-point vectors (N, d)."
        )
    blocks = (matrix[start : start + _ROWS] for start in range(0, len(matrix), _ROWS))
    return _Source((matrix.shape[0], matrix.shape[1]), blocks)


def _ids(
    given: Sequence[str] | np.ndarray | Path | None, stored: np.ndarray | None, count: int
) -> np.ndarray:
    if isinstance(given, Path):
        if not given.is_file():
            raise CompatError(f"There is no id file {given}: check the path.")
        return np.array(given.read_text("utf-8").splitlines(), dtype=str)
    if given is not None:
        return np.asarray(given, dtype=str)
    return np.arange(count).astype(str) if stored is None else np.asarray(stored, dtype=str)


def _check_length(found: int, what: str, expected: int, path: Path) -> None:
    if found != expected:
        raise CompatError(
            f"There are {found} {what} for the {expected} vectors in {path}: give one per vector."
        )
