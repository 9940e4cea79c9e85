"""Text files of rows, in which published sets list their images."""

from __future__ import annotations

from pathlib import Path

from compat.errors import CompatError


def read_rows(path: Path, *, columns: int, header: int = 0) -> list[list[str]]:
    """The whitespace-separated rows below the header.

    Raises:
        CompatError: A row has another number of columns, or there is none.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = line.split()
        if number <= header or not row:
            continue
        if len(row) != columns:
            raise CompatError(
                f"The file {path} has {len(row)} columns in line {number}, expected {columns}: "
                "unpack the published file again."
            )
        rows.append(row)
    if not rows:
        raise CompatError(f"The file {path} lists no images: unpack the published file again.")
    return rows
