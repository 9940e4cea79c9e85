"""Files of vectors that somebody else computed, one reader for each format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from compat.data.parquet import column_values, open_parquet
from compat.errors import CompatError
from compat.gallery import faiss_program
from compat.gallery.arrays import map_array
from searchspaces.support.errors import reason
from searchspaces.support.naming import did_you_mean
from searchspaces.support.reading import check_file

ROWS = 16_384  # read at a time
_MOST_BYTES = 1 << 44
_WIDEST = 1 << 16  # dimensions
_BLOW_UP = 1000  # bytes that one byte of an archive may stand for
_REMEDY = "write it again"


@dataclass(frozen=True)
class VectorFile:
    """What a file of vectors holds.

    Attributes:
        shape: (N, d).
        blocks: The rows in order, some at a time.
        ids: (N,) as they are stored, None when the file has none.
        labels: (N,) as they are stored, None when the file has none.
    """

    shape: tuple[int, int]
    blocks: Iterator[np.ndarray]
    ids: Any = None
    labels: Any = None


def open_vectors(path: Path) -> VectorFile:
    """Open ``.npy``, ``.npz``, ``.parquet`` or a faiss index by its ending.

    Raises:
        CompatError: There is no such file, it is damaged, or it holds no vectors.
    """
    if path.suffix not in _READERS:
        raise CompatError(
            f"{path} has the ending {path.suffix!r}, expected one of {', '.join(_READERS)}."
        )
    check_file(path, at_most=_MOST_BYTES, error=CompatError, remedy="check the path")
    try:
        found = _READERS[path.suffix](path)
    except CompatError:
        raise
    except Exception as error:  # every format has its own errors for a damaged file
        raise CompatError(
            f"{path} cannot be read as {path.suffix} vectors ({reason(error)}): {_REMEDY}."
        ) from error
    count, dimension = found.shape
    if not count:
        raise CompatError(f"{path} holds no vectors: there is nothing to import.")
    if not 1 <= dimension <= _WIDEST:
        raise CompatError(
            f"{path} holds vectors of {dimension} dimensions, expected 1 to {_WIDEST}: {_REMEDY}."
        )
    return found


def _open_npy(path: Path) -> VectorFile:
    return _of_matrix(map_array(path, _REMEDY), path)


def _open_npz(path: Path) -> VectorFile:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > _BLOW_UP * max(1, entry.compress_size):
                raise ValueError(f"'{entry.filename}' stands for {entry.file_size:,} bytes")
            with archive.open(entry) as file:
                _check_length(file, entry)
    with np.load(path, allow_pickle=False) as arrays:
        if "vectors" not in arrays:
            raise CompatError(
                f"{path} has no array 'vectors'{did_you_mean('vectors', arrays)}, only "
                f"{list(arrays)}: rename it."
            )
        found = _of_matrix(arrays["vectors"], path)
        return VectorFile(found.shape, found.blocks, arrays.get("ids"), arrays.get("labels"))


def _check_length(file: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Refuse an array that is longer than what is stored of it, before there is memory for it."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    size = dtype.itemsize
    for side in shape:
        size *= side
    if file.tell() + size != entry.file_size:
        raise ValueError(f"'{entry.filename}' is not as long as its shape {shape} says")


def _open_parquet(path: Path) -> VectorFile:
    from pyarrow import types

    file = open_parquet(path, ("id", "vector"))
    schema = file.schema_arrow
    for name in ("id", "vector"):
        if name not in schema.names:
            raise CompatError(
                f"{path} has no column {name!r}{did_you_mean(name, schema.names)}, only "
                f"{schema.names}: rename it."
            )
    kind = schema.field("vector").type
    if not hasattr(kind, "value_type") or not types.is_floating(kind.value_type):
        raise CompatError(f"{path} has a column 'vector' of {kind}, expected lists of floats.")
    ids = column_values(file, "id")
    if None in ids:
        raise CompatError(f"{path} has no id in row {ids.index(None)}: give every row one.")
    first = next(file.iter_batches(batch_size=1, columns=["vector"]), None)
    dimension = len(first.column(0)[0].as_py() or ()) if first is not None else 0

    def blocks() -> Iterator[np.ndarray]:
        start = 0
        for batch in file.iter_batches(batch_size=ROWS, columns=["vector"]):
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

    return VectorFile((len(ids), dimension), _named(blocks(), path), [str(name) for name in ids])


def _open_faiss(path: Path) -> VectorFile:
    with _faiss(path) as output:
        count, dimension = json.loads(output.readline() or "null")

    def blocks() -> Iterator[np.ndarray]:
        with _faiss(path) as again:
            again.readline()
            for start in range(0, count, ROWS):
                rows = min(ROWS, count - start)
                content = again.read(4 * rows * dimension)
                if len(content) < 4 * rows * dimension:
                    raise ValueError("it ends too early")
                yield np.frombuffer(content, "<f4").reshape(rows, dimension)

    return VectorFile((count, dimension), _named(blocks(), path))


@contextmanager
def _faiss(path: Path) -> Iterator[IO[bytes]]:
    """What the program gives out; if it gives too little, the error is the program's own."""
    command = [sys.executable, "-P", str(faiss_program.__file__), str(path)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | threads
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
        except (ValueError, TypeError) as error:
            words = process.stderr.read().decode(errors="replace").strip().splitlines()
            code = process.wait()
            ended = f"faiss ended with signal {-code}" if code < 0 else "faiss gave no reason"
            raise ValueError(words[-1] if words else ended) from error
        finally:
            process.kill()


def _of_matrix(matrix: np.ndarray, path: Path) -> VectorFile:
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise CompatError(
            f"{path} holds an array of shape {matrix.shape} and type {matrix.dtype}, expected "
            "floating-point vectors (N, d)."
        )
    blocks = (matrix[start : start + ROWS] for start in range(0, len(matrix), ROWS))
    return VectorFile((matrix.shape[0], matrix.shape[1]), blocks)


def _named(blocks: Iterator[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """The same blocks, with the file's name in whatever its library raises on the way."""
    try:
        yield from blocks
    except CompatError:
        raise
    except Exception as error:
        raise CompatError(f"{path} is damaged ({reason(error)}): {_REMEDY}.") from error


_READERS: Mapping[str, Callable[[Path], VectorFile]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".parquet": _open_parquet,
    **dict.fromkeys((".faiss", ".index", ".idx"), _open_faiss),
}
