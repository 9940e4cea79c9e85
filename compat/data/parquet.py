"""Parquet files that anybody may have written: read in a process of their own, then opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.errors import CompatError
from searchspaces.support.reading import check_file
from searchspaces.support.trials import problem_in_trial

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_MOST_BYTES = 1 << 40
_SECONDS = 60  # of processor time, and one more for every 10 MiB
_MEMORY = 6 << 30  # bytes of addresses; pyarrow reserves more than it uses
_TRIAL = Path(__file__).with_name("parquet_trial.py")


def open_parquet(path: Path, columns: Sequence[str]) -> ParquetFile:
    """Open a table whose rows have names of their own.

    Args:
        path: The file.
        columns: Those that will be read, if they are there.

    Raises:
        CompatError: There is no such file, it is damaged, it stands for more than so few bytes can
            mean, or these columns hold other things than text of at most 4096 bytes, numbers and
            lists of numbers.
    """
    from pyarrow import parquet

    check_file(path, at_most=_MOST_BYTES, error=CompatError, remedy="give a .parquet file")
    problem = problem_in_trial(
        _TRIAL,
        str(path.resolve()),
        *columns,
        seconds=_SECONDS + path.stat().st_size // (10 << 20),
        memory=_MEMORY,
        library="pyarrow",
    )
    if problem is not None:
        raise CompatError(f"The table {path} cannot be read ({problem}): write it again.")
    return parquet.ParquetFile(path)


def column_values(file: ParquetFile, name: str) -> list[Any]:
    """Return a column's cells as plain values, None for an empty one."""
    cells: list[Any] = file.read(columns=[name]).column(name).to_pylist()
    return cells
