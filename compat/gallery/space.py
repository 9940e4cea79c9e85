"""A gallery space on disk: the vectors that every query model has to live with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compat.data.preprocessing import Preprocessing
from compat.data.views import ViewRecipe
from compat.errors import CompatError
from compat.evaluation.similarity import Metric
from compat.gallery.codes import Coder, Codes, ProductCoder, SignCoder, Vectors, wrap
from searchspaces.support.naming import did_you_mean

VERSION = 1
MANIFEST = "gallery.json"
VECTORS, IDS, LABELS = "vectors.npy", "ids.npy", "labels.npy"
VIEW_ROWS, VIEW_VECTORS = "view_rows.npy", "view_vectors.npy"
CLASSIFIER = "classifier.npy"
CODES, VIEW_CODES = "codes.npy", "view_codes.npy"
CENTROIDS, ROTATION = "centroids.npy", "rotation.npy"

_FIELDS = {
    *("count", "dimension", "metric", "fingerprint", "model", "model_macs"),
    *("preprocessing", "data"),
    *("classes", "view_recipe", "views", "files"),
}
_CHUNK = 1 << 24  # bytes hashed, or values checked, at a time
_NEAR = 1000  # neighbours in sorted order among which a misspelt id is looked for


@dataclass(frozen=True)
class GallerySpace:
    """Frozen gallery vectors with all that is needed to embed, compare and reproduce them.

    Attributes:
        path: The folder.
        vectors: (N, d) float32 or float16 memory map, or codes that read like one; when cosine,
            rows have length one (those that product codes stand for only nearly).
        encoded_ids: (N,) UTF-8 bytes memory map; `ids` are the same as text.
        labels: (N,) int64 memory map, -1 for none, or None.
        classes: Names of the labels, empty when unknown.
        classifier: (C, d) float32: the gallery model's own weight vector of ``classes[i]`` in row
            i, NaN for classes that it was not trained on; None where it is not known.
        metric: ``cosine``, ``ip``, or ``hamming`` for vectors of +1 and -1.
        model: Spec of the gallery model, None when vectors were imported.
        model_digest: Hash (hex) of the gallery model's weights, None when unknown.
        model_macs: Multiply-accumulates of one image through the gallery model, None when unknown.
        preprocessing: Of the gallery model, None when unknown.
        data: Spec of the images, None when unknown.
        fingerprint: SHA-256 (hex) over metric, vectors (or codes) and ids.
        view_recipe: How the views were drawn, None without views.
        view_rows: (n,) int64 rows whose views were embedded.
        view_vectors: (V, n, d) memory map, or codes: view v of image ``view_rows[i]``; None without
            views.
        derivation: What was done to other galleries to make this one, step by step; empty when the
            vectors are as the gallery model gave them.
    """

    path: Path
    vectors: Vectors
    encoded_ids: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    classifier: np.ndarray | None
    metric: Metric
    model: str | None
    model_digest: str | None
    model_macs: int | None
    preprocessing: Preprocessing | None
    data: str | None
    fingerprint: str
    view_recipe: ViewRecipe | None
    view_rows: np.ndarray
    view_vectors: Vectors | None
    derivation: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """Width d of the vectors."""
        return int(self.vectors.shape[1])

    @property
    def bytes_per_vector(self) -> int:
        """Bytes stored per image; centroids and rotation, stored once, are not counted."""
        if isinstance(self.vectors, Codes):
            return self.vectors.coder.code_size
        return self.dimension * self.vectors.dtype.itemsize

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) str."""
        return np.char.decode(self.encoded_ids, "utf-8")

    @cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.encoded_ids, kind="stable")
        return order, self.encoded_ids[order]

    def rows(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """Rows (n,) int64 of the images with these ids.

        Raises:
            CompatError: For an id that the gallery does not have, with near matches.
        """
        wanted = encode_ids(ids)
        if not len(wanted):
            return np.empty(0, dtype=np.int64)
        order, ordered = self._by_id
        places = np.searchsorted(ordered, wanted)
        wrong = np.flatnonzero(ordered[np.minimum(places, len(ordered) - 1)] != wanted)
        if len(wrong):
            name = wanted[wrong[0]].decode()
            place = int(places[wrong[0]])
            near = [known.decode() for known in ordered[max(0, place - _NEAR) : place + _NEAR]]
            raise CompatError(
                f"{self.path}: the gallery has no image {name!r}{did_you_mean(name, near)}; "
                f"{len(wrong)} of {len(wanted)} ids are unknown: embed the same data, or rebuild "
                "the gallery."
            )
        return order[places]

    @classmethod
    def open(cls, path: str | Path) -> GallerySpace:
        """Memory-map a gallery after checking that all its files have the size they should have.

        Raises:
            CompatError: When the folder or a file is missing, cut short or of another version.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise CompatError(
                f"There is no gallery folder {folder}: build one with `querynas gallery build` or "
                "`querynas gallery import`."
            )
        manifest = _read_manifest(folder)
        for name, entry in manifest["files"].items():
            _check_size(folder / name, entry["bytes"])
        arrays = {name: _map(folder / name) for name in manifest["files"]}
        count, dimension = manifest["count"], manifest["dimension"]
        coder = _coder(folder, manifest, arrays)
        vectors = _vectors(folder, arrays, (count,), dimension, coder, VECTORS, CODES)
        _check_shape(folder / IDS, arrays[IDS].shape, (count,))
        if LABELS in arrays:
            _check_shape(folder / LABELS, arrays[LABELS].shape, (count,))
        if CLASSIFIER in arrays:
            expected = (len(manifest["classes"]), dimension)
            _check_shape(folder / CLASSIFIER, arrays[CLASSIFIER].shape, expected)
        views = manifest["views"]
        if views is not None:
            _check_shape(folder / VIEW_ROWS, arrays[VIEW_ROWS].shape, (views["rows"],))
        view_vectors = None
        if views is not None:
            shape = (views["count"], views["rows"])
            view_vectors = _vectors(
                folder, arrays, shape, dimension, coder, VIEW_VECTORS, VIEW_CODES
            )
        preprocessing, recipe = manifest["preprocessing"], manifest["view_recipe"]
        return cls(
            path=folder,
            vectors=vectors,
            encoded_ids=arrays[IDS],
            labels=arrays.get(LABELS),
            classes=tuple(manifest["classes"]),
            classifier=arrays.get(CLASSIFIER),
            metric=manifest["metric"],
            model=manifest["model"],
            model_digest=manifest.get("model_digest"),
            model_macs=manifest["model_macs"],
            preprocessing=preprocessing and Preprocessing.from_dict(preprocessing),
            data=manifest["data"],
            fingerprint=manifest["fingerprint"],
            view_recipe=recipe and ViewRecipe(**recipe),
            view_rows=arrays.get(VIEW_ROWS, np.empty(0, dtype=np.int64)),
            view_vectors=view_vectors,
            derivation=tuple(manifest.get("derivation", ())),
        )

    def verify(self) -> None:
        """Read everything once: file hashes, fingerprint, and every vector finite and not zero.

        Raises:
            CompatError: At the first thing that is not as it was written.
        """
        manifest = _read_manifest(self.path)
        for name, entry in manifest["files"].items():
            found = file_hash(self.path / name)
            if found != entry["sha256"]:
                raise CompatError(
                    f"{self.path / name} has changed since it was written: its SHA-256 is "
                    f"{found[:12]}…, expected {entry['sha256'][:12]}…; restore it or rebuild the "
                    "gallery."
                )
        found = fingerprint(self.metric, self.vectors, self.encoded_ids)
        if found != self.fingerprint:
            raise CompatError(
                f"{self.path / MANIFEST} states fingerprint {self.fingerprint[:12]}…, but vectors "
                f"and ids give {found[:12]}…; restore the file or rebuild the gallery."
            )
        coded = isinstance(self.vectors, Codes)
        check_vectors(self.vectors, f"{self.path / (CODES if coded else VECTORS)}")
        if self.view_vectors is not None:
            name = self.path / (VIEW_CODES if coded else VIEW_VECTORS)
            for view, vectors in enumerate(self.view_vectors):
                check_vectors(vectors, f"{name}, view {view},")


def encode_ids(ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """Text as UTF-8 bytes, which a memory map can hold and numpy sorts quickly."""
    return np.char.encode(np.asarray(ids, dtype=str), "utf-8")


def fingerprint(metric: str, vectors: Vectors, encoded_ids: np.ndarray) -> str:
    """SHA-256 (hex) over metric, type, shape and values of the vectors, and the ids in order.

    Of compressed vectors it takes the stored arrays (codes, centroids, rotation), which are the
    same on every machine; the decoded floats need not be, to the last bit.
    """
    digest = hashlib.sha256(f"{metric} {vectors.dtype.name} {vectors.shape}".encode())
    stored = vectors.stored if isinstance(vectors, Codes) else {"": vectors}
    for name, values in stored.items():
        if name:
            digest.update(f" {name} {values.dtype.name} {values.shape}".encode())
        step = max(1, _CHUNK // (values[:1].nbytes or 1))
        for start in range(0, len(values), step):
            digest.update(np.ascontiguousarray(values[start : start + step]).data)
    for start in range(0, len(encoded_ids), _CHUNK):
        names = encoded_ids[start : start + _CHUNK].tolist()
        digest.update(b"".join(b"\0" + name for name in names))
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_vectors(vectors: Vectors, where: str, first_row: int = 0) -> None:
    """Raise CompatError, naming ``where`` and the row, at a row that is not finite or is zero."""
    step = max(1, _CHUNK // vectors.shape[1])
    for start in range(0, len(vectors), step):
        rows = np.asarray(vectors[start : start + step])
        peaks = np.abs(rows).max(axis=1)
        wrong = np.flatnonzero(~np.isfinite(peaks) | (peaks == 0))
        if len(wrong):
            row = int(wrong[0])
            state = "zero" if peaks[row] == 0 else "not finite"
            raise CompatError(
                f"{where} row {first_row + start + row} is {state}: every gallery vector must have "
                "a direction; repair or leave out that image."
            )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CompatError(
            f"{folder} is no gallery, it has no {MANIFEST}: name a folder that `querynas gallery` "
            "wrote (an unfinished build ends in .partial; run its command again)."
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = manifest["version"]
        missing = _FIELDS - manifest.keys() if version == VERSION else set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompatError(
            f"{path} is not a gallery description ({error}): restore it or rebuild the gallery."
        ) from error
    if version != VERSION:
        raise CompatError(
            f"{path} has format version {version}, expected {VERSION}: use the querynas that wrote "
            "it, or rebuild the gallery."
        )
    if missing:
        raise CompatError(
            f"{path} lacks {', '.join(sorted(missing))}: restore it or rebuild the gallery."
        )
    return manifest


def _coder(folder: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> Coder | None:
    """The coder of the codes that the manifest speaks of, None when vectors are stored as such."""
    kind = manifest.get("codes")
    if kind is None:
        return None
    if kind == "sign":
        return SignCoder(manifest["dimension"])
    if kind == "product":
        return ProductCoder(_array(folder, arrays, CENTROIDS), arrays.get(ROTATION))
    raise CompatError(
        f"{folder / MANIFEST} speaks of codes {kind!r}, expected 'product' or 'sign': use the "
        "querynas that wrote it, or rebuild the gallery."
    )


def _vectors(
    folder: Path,
    arrays: dict[str, np.ndarray],
    shape: tuple[int, ...],
    dimension: int,
    coder: Coder | None,
    plain: str,
    coded: str,
) -> Vectors:
    """The vectors (*shape, dimension), in the file ``plain`` or as codes in ``coded``."""
    name, width = (plain, dimension) if coder is None else (coded, coder.code_size)
    array = _array(folder, arrays, name)
    _check_shape(folder / name, array.shape, (*shape, width))
    if coder is None:
        return array
    if coder.dimension != dimension:
        raise CompatError(
            f"{folder / CENTROIDS} is for {coder.dimension} dimensions, but {MANIFEST} says "
            f"{dimension}: the files are not of one gallery; restore them or rebuild it."
        )
    return wrap(array, coder)


def _array(folder: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise CompatError(
            f"{folder / MANIFEST} does not list {name}: restore it or rebuild the gallery."
        )
    return arrays[name]


def _map(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise CompatError(
            f"{path} is damaged ({error}): restore the file or rebuild the gallery."
        ) from error
    return array


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise CompatError(f"{path} is missing: restore the file or rebuild the gallery.")
    found = path.stat().st_size
    if found != expected:
        raise CompatError(
            f"{path} has {found:,} bytes, expected {expected:,}: the copy is incomplete; copy it "
            "again or rebuild the gallery."
        )


def _check_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise CompatError(
            f"{path} has shape {found}, but {MANIFEST} says {expected}: the files are not of one "
            "gallery; restore them or rebuild it."
        )
