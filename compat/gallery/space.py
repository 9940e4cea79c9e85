"""A gallery space on disk: the vectors that every query model has to live with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from compat.data.images import is_text
from compat.data.preprocessing import Preprocessing
from compat.data.views import ViewRecipe
from compat.errors import CompatError
from compat.evaluation.similarity import Metric
from compat.gallery.arrays import map_array
from compat.gallery.codes import Coder, Codes, ProductCoder, SignCoder, Vectors, wrap
from compat.gallery.manifest import MANIFEST, Manifest, read_manifest
from searchspaces.support.errors import reason
from searchspaces.support.naming import did_you_mean

VECTORS, IDS, LABELS = "vectors.npy", "ids.npy", "labels.npy"
VIEW_ROWS, VIEW_VECTORS = "view_rows.npy", "view_vectors.npy"
CLASSIFIER = "classifier.npy"
CODES, VIEW_CODES = "codes.npy", "view_codes.npy"
CENTROIDS, ROTATION = "centroids.npy", "rotation.npy"

_KINDS = {  # of numbers, as numpy names them: integers, floats, bytes
    **{LABELS: "i", VIEW_ROWS: "i", IDS: "S", CLASSIFIER: "f", VECTORS: "f", VIEW_VECTORS: "f"},
    **{CODES: "u", VIEW_CODES: "u", CENTROIDS: "f", ROTATION: "f"},
}
_CHUNK = 1 << 24  # bytes hashed, or values checked, at a time
_NEAR = 1000  # neighbours in sorted order among which a misspelt id is looked for


@dataclass(frozen=True)
class GallerySpace:
    """Frozen gallery vectors with all that is needed to embed, compare and reproduce them.

    Attributes:
        path: The folder.
        manifest: What the folder says of itself: metric, classes, where the vectors come from.
        vectors: (N, d) float32 or float16 memory map, or codes that read like one; when cosine,
            rows have length one (those that product codes stand for only nearly).
        encoded_ids: (N,) UTF-8 bytes memory map; `ids` are the same as text.
        labels: (N,) int64 memory map, -1 for none, or None.
        classifier: (C, d) float32: the gallery model's own weight vector of ``classes[i]`` in row
            i, NaN for classes that it was not trained on; None where it is not known.
        view_rows: (n,) int64 rows whose views were embedded.
        view_vectors: (V, n, d) memory map, or codes: view v of image ``view_rows[i]``; None without
            views.
    """

    path: Path
    manifest: Manifest
    vectors: Vectors
    encoded_ids: np.ndarray
    labels: np.ndarray | None
    classifier: np.ndarray | None
    view_rows: np.ndarray
    view_vectors: Vectors | None

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""
        return self.manifest.metric

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, empty when unknown."""
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over metric, vectors (or codes) and ids."""
        return self.manifest.fingerprint

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Of the gallery model, None when unknown."""
        return self.manifest.preprocessing

    @property
    def view_recipe(self) -> ViewRecipe | None:
        """How the views were drawn, None without views."""
        return self.manifest.view_recipe

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
        try:
            names: np.ndarray = np.char.decode(self.encoded_ids, "utf-8")
            encode_ids(names)
        except (UnicodeDecodeError, CompatError) as error:
            raise CompatError(
                f"{self.path / IDS} holds an id that is no UTF-8 text ({reason(error)}): restore "
                "the file or rebuild the gallery."
            ) from error
        return names

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
            near = [
                known.decode(errors="replace")
                for known in ordered[max(0, place - _NEAR) : place + _NEAR]
            ]
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
        if not os.path.isdir(folder):
            raise CompatError(
                f"There is no gallery folder {folder}: build one with `querynas gallery build` or "
                "`querynas gallery import`."
            )
        manifest = read_manifest(folder)
        for name, entry in manifest.files.items():
            _check_size(folder / name, entry.bytes)
        files = _Files(folder, manifest)
        count, dimension, views = manifest.count, manifest.dimension, manifest.views
        coder = files.coder()
        view_rows, view_vectors = np.empty(0, dtype=np.int64), None
        if views is not None:
            view_rows = files.read(VIEW_ROWS, (views.rows,))
            files.check_range(VIEW_ROWS, view_rows, 0, count)
            shape = (views.count, views.rows)
            view_vectors = files.vectors(VIEW_VECTORS, VIEW_CODES, shape, coder)
        labels = files.read(LABELS, (count,)) if LABELS in manifest.files else None
        if labels is not None:
            known = len(manifest.classes) or np.iinfo(np.int64).max
            files.check_range(LABELS, labels, -1, known)
        classifier = None
        if CLASSIFIER in manifest.files:
            classifier = files.read(CLASSIFIER, (len(manifest.classes), dimension))
        return cls(
            path=folder,
            manifest=manifest,
            vectors=files.vectors(VECTORS, CODES, (count,), coder),
            encoded_ids=files.read(IDS, (count,)),
            labels=labels,
            classifier=classifier,
            view_rows=view_rows,
            view_vectors=view_vectors,
        )

    def verify(self) -> None:
        """Read everything once: file hashes, fingerprint, and every vector finite and not zero.

        Raises:
            CompatError: At the first thing that is not as it was written.
        """
        for name, entry in self.manifest.files.items():
            found = file_hash(self.path / name)
            if found != entry.sha256:
                raise CompatError(
                    f"{self.path / name} has changed since it was written: its SHA-256 is "
                    f"{found[:12]}…, expected {entry.sha256[:12]}…; restore it or rebuild the "
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
            file = self.path / (VIEW_CODES if coded else VIEW_VECTORS)
            for view, vectors in enumerate(self.view_vectors):
                check_vectors(vectors, f"{file}, view {view},")


def encode_ids(ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """Text as UTF-8 bytes, which a memory map can hold and numpy sorts quickly.

    Raises:
        CompatError: An id is longer than 4096 bytes, holds a zero byte, or is none that UTF-8 has.
    """
    names = ids.tolist() if isinstance(ids, np.ndarray) else ids
    for row, name in enumerate(names):
        if not is_text(name):
            raise CompatError(
                f"The id {name[:40]!r} in row {row} cannot be written as UTF-8 text of at most "
                "4096 bytes: rename it."
            )
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


@dataclass(frozen=True)
class _Files:
    """The files of a gallery's folder, each checked against what the manifest says."""

    folder: Path
    manifest: Manifest

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Map a file of the kind that its name stands for; of any shape when None."""
        path = self.folder / name
        if name not in self.manifest.files:
            raise CompatError(
                f"{self.folder / MANIFEST} does not list {name}: restore it or rebuild the gallery."
            )
        array = map_array(path, "restore the file or rebuild the gallery")
        if array.dtype.kind != _KINDS[name]:
            raise CompatError(
                f"{path} holds {array.dtype}, which is not what a gallery keeps there: restore the "
                "file or rebuild the gallery."
            )
        if shape is not None and array.shape != shape:
            raise CompatError(
                f"{path} has shape {array.shape}, but {MANIFEST} says {shape}: the files are not "
                "of one gallery; restore them or rebuild it."
            )
        return array

    def check_range(self, name: str, values: np.ndarray, low: int, high: int) -> None:
        """Refuse whole numbers below ``low``, or ``high`` and above."""
        if len(values) and not low <= values.min() <= values.max() < high:
            raise CompatError(
                f"{self.folder / name} spans {values.min()} to {values.max()}, expected {low} to "
                f"{high - 1}: restore the file or rebuild the gallery."
            )

    def coder(self) -> Coder | None:
        """The coder of the codes, None when vectors are stored as such."""
        dimension = self.manifest.dimension
        if self.manifest.codes is None:
            return None
        if self.manifest.codes == "sign":
            return SignCoder(dimension)
        rotation = self.read(ROTATION) if ROTATION in self.manifest.files else None
        try:
            coder = ProductCoder(self.read(CENTROIDS), rotation)
        except CompatError as error:
            raise CompatError(f"{self.folder}: {error}") from error
        if coder.dimension != dimension:
            raise CompatError(
                f"{self.folder / CENTROIDS} is for {coder.dimension} dimensions, but {MANIFEST} "
                f"says {dimension}: the files are not of one gallery; restore them or rebuild it."
            )
        return coder

    def vectors(
        self, plain: str, coded: str, shape: tuple[int, ...], coder: Coder | None
    ) -> Vectors:
        """The vectors (*shape, dimension), in the file ``plain`` or as codes in ``coded``."""
        if coder is not None:
            return wrap(self.read(coded, (*shape, coder.code_size)), coder)
        vectors = self.read(plain, (*shape, self.manifest.dimension))
        if vectors.dtype.name != self.manifest.dtype:
            raise CompatError(
                f"{self.folder / plain} holds {vectors.dtype}, but {MANIFEST} says "
                f"{self.manifest.dtype}: restore the file or rebuild the gallery."
            )
        return vectors


def _check_size(path: Path, expected: int) -> None:
    if not os.path.isfile(path):
        raise CompatError(f"{path} is missing: restore the file or rebuild the gallery.")
    found = path.stat().st_size
    if found != expected:
        raise CompatError(
            f"{path} has {found:,} bytes, expected {expected:,}: the copy is incomplete; copy it "
            "again or rebuild the gallery."
        )
