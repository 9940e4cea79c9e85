"""A CSV or Parquet table that lists images with their labels, splits, boxes and cameras."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat.data.files import FileSource
from compat.data.images import SPLITS, ImageSet
from compat.data.parquet import column_values, open_parquet
from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.naming import did_you_mean
from searchspaces.support.reading import check_file

REQUIRED = ("path",)
EDGES = ("x0", "y0", "x1", "y1")
OPTIONAL = ("label", "split", "bbox", "camera", *EDGES)
_MOST_BYTES = 1 << 30
_MOST_COLUMNS = 1000
_LARGEST_EDGE = 1e6  # pixels

_Columns = Mapping[str, Sequence[Any]]


def open_manifest(path: Path) -> ImageSet:
    """Reads a table with one row per image.

    Columns: `path` (relative to the table's folder), and optionally `label` (text; empty for none),
    `split` (train, val, query, gallery; test or empty for a test image that is both query and
    gallery), `bbox` ("x0 y0 x1 y1" or a JSON list, in pixels; or four columns `x0`, `y0`, `x1`,
    `y1`; empty for the whole image) and `camera` (an integer; empty for unknown). Other columns
    are ignored. An image's id is its path, followed by "#x0,y0,x1,y1" if it has a box.

    Raises:
        CompatError: The table, a column or a file is missing, or a value cannot be read.
    """
    manifest = path.resolve()
    table = _read(manifest)
    paths = [text.replace("\\", "/") for text in _texts(table, "path")]
    _check_files(manifest, paths)
    boxes = _boxes(manifest, table)
    ids = paths if boxes is None else [_id(*row) for row in zip(paths, boxes, strict=True)]
    _check_unique(manifest, ids)
    names = _texts(table, "label") if "label" in table else [""] * len(paths)
    classes = tuple(sorted(set(names) - {""}))
    number = {name: index for index, name in enumerate(classes)} | {"": -1}
    return ImageSet(
        name=manifest.stem,
        spec=str(manifest),
        ids=np.array(ids),
        labels=np.array([number[name] for name in names], dtype=np.int64),
        classes=classes,
        split=_split(manifest, table),
        camera=_camera(manifest, table),
        source=FileSource(tuple(str(manifest.parent / image) for image in paths), boxes),
    )


def _read(manifest: Path) -> _Columns:
    """The known columns, cell by cell."""
    remedy = "give a .csv or .parquet file with a column path"
    if not os.path.isfile(manifest) and (near := did_you_mean(manifest.name, _near(manifest))):
        raise CompatError(f"There is no manifest {manifest}{near}: {remedy}.")
    check_file(manifest, at_most=_MOST_BYTES, error=CompatError, remedy=remedy)
    try:
        read = _read_parquet if manifest.suffix.lower() == ".parquet" else _read_csv
        columns = read(manifest)
    except CompatError:
        raise
    except Exception as error:  # pyarrow and csv have many types for a damaged file
        raise CompatError(
            f"The manifest {manifest} cannot be read as a table ({reason(error)}): save it again."
        ) from error
    if not columns["path"]:
        raise CompatError(f"The manifest {manifest} lists no images: add at least one row.")
    return columns


def _read_parquet(manifest: Path) -> _Columns:
    file = open_parquet(manifest, REQUIRED + OPTIONAL)
    names = file.schema_arrow.names
    _check_columns(manifest, names)
    return {name: column_values(file, name) for name in names if name in REQUIRED + OPTIONAL}


def _read_csv(manifest: Path) -> _Columns:
    with manifest.open(encoding="utf-8-sig", newline="") as text:
        rows = filter(None, csv.reader(text, strict=True))
        names = next(rows, [])
        _check_columns(manifest, names)
        known = [place for place, name in enumerate(names) if name in REQUIRED + OPTIONAL]
        columns: dict[str, list[str]] = {names[place]: [] for place in known}
        for number, row in enumerate(rows, start=1):
            if len(row) > len(names):
                raise CompatError(
                    f"The manifest {manifest} has {len(row)} cells in row {number}, expected "
                    f"{len(names)} as it has columns: quote cells that hold a comma."
                )
            for place in known:
                columns[names[place]].append(row[place] if place < len(row) else "")
    return columns


def _check_columns(manifest: Path, columns: Sequence[str]) -> None:
    if len(columns) > _MOST_COLUMNS:
        raise CompatError(
            f"The manifest {manifest} has {len(columns):,} columns, expected at most "
            f"{_MOST_COLUMNS:,}: leave out those that say nothing about images."
        )
    for name in REQUIRED:
        if name not in columns:
            raise CompatError(
                f"The manifest {manifest} has the columns {list(columns)} but no '{name}'"
                f"{did_you_mean(name, columns)}: add or rename it."
            )
    for name in REQUIRED + OPTIONAL:
        if list(columns).count(name) > 1:
            raise CompatError(f"The manifest {manifest} has two columns '{name}': remove one.")
    spare = [name for name in OPTIONAL if name not in columns]
    for column in columns:
        if column not in REQUIRED + OPTIONAL and did_you_mean(column.lower(), spare):
            raise CompatError(
                f"The manifest {manifest} has a column '{column}' that has no meaning here"
                f"{did_you_mean(column.lower(), spare)}: rename it."
            )
    edges = [name for name in EDGES if name in columns]
    if edges and len(edges) < 4:
        raise CompatError(
            f"The manifest {manifest} has the box columns {edges}, expected all of {list(EDGES)}."
        )
    if edges and "bbox" in columns:
        raise CompatError(
            f"The manifest {manifest} has a 'bbox' column and {list(EDGES)}: keep one of the two."
        )


def _texts(table: _Columns, column: str) -> list[str]:
    return ["" if _is_empty(value) else str(value) for value in table[column]]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_files(manifest: Path, paths: Sequence[str]) -> None:
    missing = [path for path in paths if not path or not os.path.isfile(manifest.parent / path)]
    if missing:
        wanted = manifest.parent / missing[0]
        near = did_you_mean(wanted.name, _near(wanted))
        raise CompatError(
            f"The manifest {manifest} lists {len(missing)} of {len(paths)} files that do not "
            f"exist, first '{missing[0]}'{near}: paths are relative to the manifest's folder."
        )


def _near(path: Path) -> list[str]:
    """Names of what lies beside a path; none for a path that no file can have."""
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return []


def _check_unique(manifest: Path, ids: Sequence[str]) -> None:
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise CompatError(
            f"The manifest {manifest} lists '{name}' {times} times: list each image (and box) once."
        )


def _id(path: str, box: np.ndarray) -> str:
    return path if np.isnan(box).any() else f"{path}#{','.join(f'{edge:g}' for edge in box)}"


def _boxes(manifest: Path, table: _Columns) -> np.ndarray | None:
    """(N, 4) float64, nan for the whole image; None without box columns."""
    if "bbox" in table:
        values = table["bbox"]
    elif "x0" in table:
        columns = [_texts(table, edge) for edge in EDGES]
        values = [" ".join(row).strip() for row in zip(*columns, strict=True)]
    else:
        return None
    boxes = [_box(value) for value in values]
    for row, (value, box) in enumerate(zip(values, boxes, strict=True)):
        if box is None:
            raise CompatError(
                f"The manifest {manifest} has the box {value!r} in row {row + 1}, expected "
                "'x0 y0 x1 y1' in pixels with x0 < x1 and y0 < y1."
            )
    return np.array(boxes, dtype=np.float64)


def _box(value: Any) -> list[float] | None:
    """The four edges; nan for an empty value, None for one that is no box."""
    if isinstance(value, str):
        value = value.strip() or None
    if _is_empty(value):
        return [math.nan] * 4
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("[") else re.split(r"[\s,;]+", value)
        x0, y0, x1, y1 = (float(edge) for edge in value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    inside = max(abs(edge) for edge in (x0, y0, x1, y1)) <= _LARGEST_EDGE
    return [x0, y0, x1, y1] if inside and x0 < x1 and y0 < y1 else None


def _split(manifest: Path, table: _Columns) -> np.ndarray | None:
    if "split" not in table:
        return None
    values = _texts(table, "split")
    known = [name for name in SPLITS if name] + ["test"]
    for row, value in enumerate(values):
        if value and value not in known:
            raise CompatError(
                f"The manifest {manifest} has the split '{value}' in row {row + 1}, expected one "
                f"of {known} or nothing{did_you_mean(value.lower(), known)}."
            )
    return np.array(["" if value == "test" else value for value in values])


def _camera(manifest: Path, table: _Columns) -> np.ndarray | None:
    if "camera" not in table:
        return None
    cameras = []
    for row, value in enumerate(_texts(table, "camera")):
        if value and not re.fullmatch(r"[0-9]{1,9}(\.0)?", value):
            raise CompatError(
                f"The manifest {manifest} has the camera '{value}' in row {row + 1}, expected a "
                "whole number of 0 or more, or nothing if it is unknown."
            )
        cameras.append(int(float(value)) if value else -1)
    return np.array(cameras, dtype=np.int64)
