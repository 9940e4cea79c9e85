"""Parquet files of anybody: how much one stands for is known before its cells are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.errors import CompatError
from searchspaces.support.reading import check_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

LONGEST = 4096  # bytes of a text
_MOST_BYTES = 1 << 40
_VALUES_PER_BYTE = 64  # of a file; encodings that a few bytes blow up to billions go beyond
_ROWS_PER_BYTE = 4  # rows that name images differ, so they take space


def open_parquet(path: Path) -> ParquetFile:
    """Open a table whose rows have names of their own.

    Raises:
        CompatError: There is no such file, or it stands for more than it can mean.
        Exception: Whatever pyarrow raises for a damaged file.
    """
    from pyarrow import parquet, types

    remedy = "give a .parquet file"
    check_file(path, at_most=_MOST_BYTES, error=CompatError, remedy=remedy)
    schema = parquet.ParquetFile(path).schema_arrow
    texts = [
        field.name
        for field in schema
        if types.is_string(field.type) or types.is_large_string(field.type)
    ]
    file = parquet.ParquetFile(path, read_dictionary=texts)
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    values = sum(g.column(c).num_values for g in groups for c in range(g.num_columns))
    size = path.stat().st_size
    if values > _VALUES_PER_BYTE * size or file.metadata.num_rows > _ROWS_PER_BYTE * size:
        raise CompatError(
            f"The table {path} stands for {values:,} values in {size:,} bytes, which no list of "
            "images does: write it again."
        )
    return file


def column_values(file: ParquetFile, name: str) -> list[Any]:
    """Return a column's cells as plain values, None for an empty one.

    Raises:
        ValueError: It holds other things than text, numbers or lists of numbers, or a text has
            more than 4096 bytes.
        Exception: Whatever pyarrow raises for a damaged file.
    """
    from pyarrow import compute, types

    kind = file.schema_arrow.field(name).type
    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
    if not (types.is_primitive(inner) or types.is_null(inner) or types.is_dictionary(kind)):
        raise ValueError(f"the column '{name}' is of {kind}, expected text or numbers")
    column = file.read(columns=[name]).column(name)
    for chunk in column.chunks if types.is_dictionary(kind) else ():
        longest = compute.max(compute.binary_length(chunk.dictionary)).as_py() or 0
        if longest > LONGEST:
            raise ValueError(f"the column '{name}' holds a text of {longest:,} bytes")
    cells: list[Any] = column.to_pylist()
    return cells
