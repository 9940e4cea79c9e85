"""NumPy files of anybody: mapped into memory, never unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.reading import check_file

_MOST_BYTES = 1 << 44


def map_array(path: Path, remedy: str) -> np.ndarray:
    """Memory-map an ``.npy`` file.

    Args:
        path: The file.
        remedy: What to do about one that is damaged, the end of a sentence.

    Raises:
        CompatError: There is no such file, or it is damaged.
    """
    check_file(path, at_most=_MOST_BYTES, error=CompatError, remedy=remedy)
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive")
    except Exception as error:  # a header can be wrong in any way
        raise CompatError(f"{path} is damaged ({reason(error)}): {remedy}.") from error
    return array
