"""A CSV or Parquet table that lists images with their labels, splits, boxes and cameras."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.data.files import FileSource
from compat.data.images import SPLITS, ImageSet
from compat.errors import CompatError
from searchspaces.support.naming import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("path", "label")
EDGES = ("x0", "y0", "x1", "y1")
OPTIONAL = ("split", "bbox", "camera", *EDGES)


def open_manifest(path: Path) -> ImageSet:
    """Reads a table with one row per image.

    Columns: `path` (relative to the table's folder), `label` (text; empty for none), and
    optionally `split` (train, val, query, gallery; test or empty for a test image that is both
    query and gallery), `bbox` ("x0 y0 x1 y1" or a JSON list, in pixels; or four columns `x0`,
    `y0`, `x1`, `y1`; empty for the whole image) and `camera` (an integer; empty for unknown).
    Other columns are ignored. An image's id is its path, followed by "#x0,y0,x1,y1" if it has a
    box.

    Raises:
        CompatError: The table, a column or a file is missing, or a value cannot be read.
    """
    manifest = path.resolve()
    table = _read(manifest)
    _check_columns(manifest, [str(name) for name in table.columns])
    paths = [text.replace("\\", "/") for text in _texts(table, "path")]
    _check_files(manifest, paths)
    boxes = _boxes(manifest, table)
    ids = paths if boxes is None else [_id(*row) for row in zip(paths, boxes, strict=True)]
    _check_unique(manifest, ids)
    names = _texts(table, "label")
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


def _read(manifest: Path) -> pd.DataFrame:
    import pandas as pd

    if not manifest.is_file():
        raise CompatError(
            f"There is no manifest {manifest}"
            f"{did_you_mean(manifest.name, _names_in(manifest.parent))}: give a .csv or .parquet "
            "file with the columns path and label."
        )
    try:
        if manifest.suffix.lower() == ".parquet":
            table = pd.read_parquet(manifest)
        else:
            table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CompatError(
            f"The manifest {manifest} cannot be read as a table ({reason}): save it again."
        ) from error
    if table.empty:
        raise CompatError(f"The manifest {manifest} lists no images: add at least one row.")
    return table


def _check_columns(manifest: Path, columns: Sequence[str]) -> None:
    for name in REQUIRED:
        if name not in columns:
            raise CompatError(
                f"The manifest {manifest} has the columns {list(columns)} but no '{name}'"
                f"{did_you_mean(name, columns)}: add or rename it."
            )
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


def _texts(table: pd.DataFrame, column: str) -> list[str]:
    missing = table[column].isna()
    return [
        "" if empty else str(value) for value, empty in zip(table[column], missing, strict=True)
    ]


def _check_files(manifest: Path, paths: Sequence[str]) -> None:
    missing = [path for path in paths if not path or not (manifest.parent / path).is_file()]
    if missing:
        wanted = manifest.parent / missing[0]
        near = did_you_mean(wanted.name, _names_in(wanted.parent))
        raise CompatError(
            f"The manifest {manifest} lists {len(missing)} of {len(paths)} files that do not "
            f"exist, first '{missing[0]}'{near}: paths are relative to the manifest's folder."
        )


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _check_unique(manifest: Path, ids: Sequence[str]) -> None:
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise CompatError(
            f"The manifest {manifest} lists '{name}' {times} times: list each image (and box) once."
        )


def _id(path: str, box: np.ndarray) -> str:
    return path if np.isnan(box).any() else f"{path}#{','.join(f'{edge:g}' for edge in box)}"


def _boxes(manifest: Path, table: pd.DataFrame) -> np.ndarray | None:
    """(N, 4) float64, nan for the whole image; None without box columns."""
    if "bbox" in table.columns:
        values = table["bbox"].to_list()
    elif "x0" in table.columns:
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
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [math.nan] * 4
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("[") else re.split(r"[\s,;]+", value)
        x0, y0, x1, y1 = (float(edge) for edge in value)
    except (ValueError, TypeError):
        return None
    return [x0, y0, x1, y1] if x0 < x1 and y0 < y1 else None


def _split(manifest: Path, table: pd.DataFrame) -> np.ndarray | None:
    if "split" not in table.columns:
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


def _camera(manifest: Path, table: pd.DataFrame) -> np.ndarray | None:
    if "camera" not in table.columns:
        return None
    cameras = []
    for row, value in enumerate(_texts(table, "camera")):
        if value and not re.fullmatch(r"\d+(\.0)?", value):
            raise CompatError(
                f"The manifest {manifest} has the camera '{value}' in row {row + 1}, expected a "
                "whole number of 0 or more, or nothing if it is unknown."
            )
        cameras.append(int(float(value)) if value else -1)
    return np.array(cameras, dtype=np.int64)
