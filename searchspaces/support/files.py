"""Writing files so that nothing is ever half-written."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

_FULL = 1 << 20  # bytes; with less left, a write that failed is taken to have met a full disk


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises:
        OSError: The disk is full, whatever words ``write`` had for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp made it readable by its owner only
        os.replace(temporary, path)
    except Exception as error:
        if shutil.disk_usage(path.parent).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, content: BaseModel) -> Path:
    """Write what `searchspaces.support.reading.read_json` reads.

    Raises:
        OSError: As `write_atomically`.
    """
    text = content.model_dump_json(indent=2, by_alias=True)
    return write_atomically(path, lambda file: file.write_text(text, "utf-8"))


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
