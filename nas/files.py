"""Writing files so that nothing is ever half-written."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from nas.errors import StudyError


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


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
        temporary.chmod(0o666 & ~_umask())  # mkstemp made it readable by its owner only
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
