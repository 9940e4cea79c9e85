"""Writing files so that nothing is ever half-written."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from nas.errors import StudyError


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises:
        StudyError: The disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StudyError(
                f"The disk is full while writing '{path}'; free space and run the same command "
                "again, what was finished is kept."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path
