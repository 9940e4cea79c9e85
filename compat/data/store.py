"""A uint8 array on disk, filled item by item; a build that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock
from pydantic import Field, TypeAdapter
from tqdm import tqdm

from compat.data.opening import BrokenImageError
from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import Versioned

CHUNK = 256  # items between two notes of progress
_ITEMS = "items.npy"
_PARTIAL = "items.partial.npy"
_PROGRESS = "progress.json"


class _Progress(Versioned):
    """How far a build has come.

    Attributes:
        done: Items that were made or found broken.
        broken: Positions of the latter, in order.
    """

    done: int = Field(ge=0)
    broken: tuple[int, ...]


def fill(
    folder: Path,
    count: int,
    shape: Sequence[int],
    make: Callable[[int], np.ndarray],
    *,
    description: str,
    stop_at_broken: bool = False,
) -> tuple[np.ndarray, list[int]]:
    """Opens the array in `folder`, after making those of its items that are not there yet.

    Several processes may call this at once: one works, the others wait for it.

    Args:
        folder: For this array alone; its name has to stand for the content.
        count: Number of items, N.
        shape: Shape of one item.
        make: Makes item i, uint8 of that shape; called from threads. An item that raises
            `BrokenImageError` is left out.
        description: For the progress bar.
        stop_at_broken: Raise the first `BrokenImageError` instead.

    Returns:
        (N - broken, *shape) uint8 memory map, and the positions of the broken items in order.

    Raises:
        CompatError: The disk is full, or what lies in `folder` is damaged.
    """
    finished = folder / _ITEMS
    if not finished.exists():
        with writing_to(folder, count * math.prod(shape)):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                if not finished.exists():  # another process may just have made it
                    _build(folder, count, shape, make, description, stop_at_broken)
    return _open(folder, count, shape)


@contextlib.contextmanager
def writing_to(folder: Path, needed: int) -> Iterator[None]:
    """Turns a full disk or a forbidden folder into a `CompatError`; `needed` is in bytes."""
    elsewhere = "set QUERYNAS_CACHE to a folder elsewhere"
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CompatError(
                f"The disk is full: the cache folder {folder} needs {needed:,} bytes; free some "
                f"space or {elsewhere}."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise CompatError(
                f"The cache folder {folder} cannot be written ({error.strerror}): {elsewhere}."
            ) from error
        raise


def write_json(path: Path, content: object) -> None:
    """Writes plain values or a pydantic model; no reader ever sees half of it."""
    text = TypeAdapter(object).dump_json(content)
    write_atomically(path, lambda temporary: temporary.write_bytes(text))


def _build(
    folder: Path,
    count: int,
    shape: Sequence[int],
    make: Callable[[int], np.ndarray],
    description: str,
    stop_at_broken: bool,
) -> None:
    start, item_bytes = len(_header(count, shape)), math.prod(shape)
    partial = folder / _PARTIAL
    progress = _progress(folder, count)
    done, broken = progress.done, list(progress.broken)
    written = start + (done - len(broken)) * item_bytes
    if not partial.exists() or partial.stat().st_size < written:
        done, broken, written = 0, [], start
    if shutil.disk_usage(folder).free < (count - done) * item_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        partial.open("r+b" if done else "w+b") as file,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=count, initial=done, desc=description, unit="image") as bar,
    ):
        file.seek(written)
        for first in range(done, count, CHUNK):
            chunk = range(first, min(first + CHUNK, count))
            for item, made in zip(chunk, pool.map(lambda i: _attempt(make, i), chunk), strict=True):
                if isinstance(made, np.ndarray):
                    file.write(np.ascontiguousarray(made).data)
                elif stop_at_broken:
                    raise made
                else:
                    broken.append(item)
                bar.update()
            _sync(file)
            progress = _Progress(version=_Progress.NEWEST, done=chunk.stop, broken=tuple(broken))
            write_json(folder / _PROGRESS, progress)
        file.truncate()
        file.seek(0)
        file.write(_header(count - len(broken), shape))
        _sync(file)
    os.replace(partial, folder / _ITEMS)


def _attempt(make: Callable[[int], np.ndarray], item: int) -> np.ndarray | BrokenImageError:
    try:
        return make(item)
    except BrokenImageError as error:
        return error


def _header(count: int, shape: Sequence[int]) -> bytes:
    """The head of an .npy file; numpy pads it, so its length does not depend on `count`."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    )
    return head.getvalue()


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _progress(folder: Path, count: int) -> _Progress:
    path = folder / _PROGRESS
    if not path.exists():
        return _Progress(done=0, broken=())
    found = read_json(path, _Progress, error=CompatError, remedy="delete its folder")
    if not all(0 <= item < found.done <= count for item in found.broken):
        raise _damaged(path, f"it is of other items than these {count}")
    return found


def _open(folder: Path, count: int, shape: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    path = folder / _ITEMS
    broken = list(_progress(folder, count).broken)
    expected = (count - len(broken), *shape)
    if not expected[0]:
        return np.zeros(expected, dtype=np.uint8), broken
    try:
        items = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises nearly anything
        raise _damaged(path, reason(error)) from error
    if items.shape != expected or items.dtype != np.uint8:
        raise _damaged(path, f"holds {items.dtype} {items.shape}, expected uint8 {expected}")
    return items, broken


def _damaged(path: Path, problem: str) -> CompatError:
    return CompatError(
        f"The cache file {path} is damaged ({problem}): delete its folder, and it is made anew."
    )
