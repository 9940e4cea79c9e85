"""A program: read columns of a Parquet file once, with limited memory and time, and drop them.

A file from outside can end the process that reads it, or stand for any number of values, so that it
is read in a process of its own first. This imports nothing of ours, and is never imported.

    python parquet_trial.py FILE COLUMN...
"""

import os
import sys

from pyarrow import Schema, compute, parquet, types

_LONGEST = 4096  # bytes of a text
_VALUES_PER_BYTE = 64  # of the file; encodings that a few bytes blow up to billions go beyond
_ROWS_PER_BYTE = 4  # rows name images that differ, so they take space
_ROWS = 16_384  # read at a time


def _run(path: str, columns: list[str]) -> None:
    schema = parquet.ParquetFile(path).schema_arrow
    kinds = {field.name: field.type for field in schema}
    texts = [n for n, k in kinds.items() if types.is_string(k) or types.is_large_string(k)]
    file = parquet.ParquetFile(path, read_dictionary=texts)
    _check_count(file.metadata, os.path.getsize(path))
    for name in columns:
        if name in kinds:
            _check_kind(name, file.schema_arrow)
            for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
                column = batch.column(0)
                column.validate(full=True)
                if types.is_dictionary(column.type):
                    lengths = compute.binary_length(column.dictionary)
                    longest = compute.max(lengths).as_py() or 0
                    if longest > _LONGEST:
                        raise ValueError(f"the column '{name}' holds a text of {longest:,} bytes")


def _check_count(metadata: parquet.FileMetaData, size: int) -> None:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    values = sum(group.column(c).num_values for group in groups for c in range(group.num_columns))
    if values > _VALUES_PER_BYTE * size or metadata.num_rows > _ROWS_PER_BYTE * size:
        raise ValueError(f"it stands for {values:,} values in {size:,} bytes")


def _check_kind(name: str, schema: Schema) -> None:
    kind = schema.field(name).type
    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
    if not (types.is_primitive(inner) or types.is_null(inner) or types.is_dictionary(kind)):
        raise ValueError(f"the column '{name}' is of {kind}, expected text or numbers")


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
