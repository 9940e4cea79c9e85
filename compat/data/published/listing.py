"""Text files of rows, in which published sets list their images."""

from __future__ import annotations

from pathlib import Path

from compat.data.images import is_text
from compat.errors import CompatError
from searchspaces.support.reading import read_text

_MOST_BYTES = 1 << 28


def read_rows(path: Path, *, columns: int, header: int = 0) -> list[list[str]]:
    """The whitespace-separated rows below the header.

    Raises:
        CompatError: A row has another number of columns, there is none, or it is no text.
    """
    rows = []
    text = read_text(
        path, error=CompatError, remedy="unpack the published file again", at_most=_MOST_BYTES
    )
    for number, line in enumerate(text.splitlines(), start=1):
        row = line.split()
        if number <= header or not row:
            continue
        if len(row) != columns:
            raise CompatError(
                f"The file {path} has {len(row)} columns in line {number}, expected {columns}: "
                "unpack the published file again."
            )
        if not all(map(is_text, row)):
            raise CompatError(
                f"The file {path} has a name in line {number} that cannot be written as UTF-8 "
                "text: unpack the published file again."
            )
        rows.append(row)
    if not rows:
        raise CompatError(f"The file {path} lists no images: unpack the published file again.")
    return rows
