"""Reading files that anyone may have written: of bounded size, of the expected form, or refused."""

import os
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from searchspaces.support.errors import QuerynasError
from searchspaces.support.problems import problem_of
from searchspaces.support.section import NEWER

Content = TypeVar("Content")

_MOST = 16 << 20  # bytes of a JSON file


def read_bytes(path: Path, *, at_most: int, error: type[QuerynasError], remedy: str) -> bytes:
    """Return what a regular file holds.

    Args:
        path: The file.
        at_most: Bytes that are read; a larger file is refused before.
        error: What to raise.
        remedy: What to do about a file that cannot be read, the end of a sentence.

    Raises:
        QuerynasError: The given kind of it: there is no such file, it is a folder or a device, it
            is too large, or it may not be read.
    """
    try:
        found = path.stat()
        problem = _refusal(found, at_most)
        if problem is None:
            with path.open("rb") as file:
                return file.read(at_most)
    except FileNotFoundError as reason:
        raise error(f"There is no file '{path}'; {remedy}.") from reason
    except (OSError, ValueError) as reason:  # the latter of a NUL in a path
        words = getattr(reason, "strerror", None) or str(reason)
        raise error(f"'{path}' cannot be read ({words}); {remedy}.") from reason
    raise error(f"'{path}' {problem}; {remedy}.")


def _refusal(found: os.stat_result, at_most: int) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if found.st_size > at_most:
        return f"has {found.st_size:,} bytes, more than the {at_most:,} that are read"
    return None


def read_json(
    path: Path,
    kind: type[Content],
    *,
    error: type[QuerynasError],
    remedy: str,
    at_most: int = _MOST,
) -> Content:
    """Return what a JSON file holds as a pydantic model, or as any type that pydantic knows.

    Raises:
        QuerynasError: The given kind of it: as `read_bytes`, or the file is no JSON (in UTF-8, no
            more than 200 levels deep), or a field is unknown, missing or of the wrong kind.
    """
    content = read_bytes(path, at_most=at_most, error=error, remedy=remedy)
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as reason:
        if reason.errors()[0]["type"] == NEWER:
            raise error(f"'{path}' is {reason.errors()[0]['msg']}.") from reason
        raise error(f"'{path}' cannot be read: {problem_of(reason, kind)}; {remedy}.") from reason
