"""Making a gallery space out of others that exist, without images and without a gallery model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from compat.errors import CompatError
from compat.evaluation.similarity import Metric
from compat.gallery.codes import Coder, Codes, SignCoder, Vectors
from compat.gallery.manifest import Description
from compat.gallery.sealing import fresh_folder, seal
from compat.gallery.space import (
    CODES,
    VECTORS,
    VIEW_CODES,
    VIEW_ROWS,
    VIEW_VECTORS,
    GallerySpace,
    check_vectors,
)

_ROWS = 8192  # read, transformed and written at a time
_SAMPLE = 200_000  # vectors at most that a map is learnt from

_Rows = np.ndarray | None  # of a source, None for all of them in order
_Convert = Callable[[Sequence[np.ndarray], str, int], np.ndarray]


def derive_gallery(
    sources: GallerySpace | Sequence[GallerySpace],
    out: str | Path,
    transform: Callable[..., np.ndarray],
    *,
    codes: Coder | None = None,
    metric: str = "cosine",
    derivation: Mapping[str, Any],
    classifier: np.ndarray | None = None,
    learned: Mapping[str, np.ndarray] | None = None,
) -> GallerySpace:
    """Make a gallery space of transformed vectors, views included, in bounded memory.

    Rows, labels, classes, preprocessing, data and views are those of the first source; rows of the
    others are matched by id. MACs are those of all gallery models together. A killed run is started
    over by the same call.

    Args:
        sources: One gallery, or several of the same images.
        out: New folder.
        transform: Maps one float32 block (B, d_i) per source to floats (B, d'), row by row.
        codes: Store the result as these codes instead of as floats.
        metric: How the new vectors are compared. With ``cosine`` they get length one (before they
            are encoded); ``hamming`` goes with a `SignCoder` and only with it.
        derivation: What is done, JSON-able; names and fingerprints of the sources are added.
        classifier: (C, d') weight vectors of the first source's classes in the new space, if known.
        learned: Arrays to keep beside the vectors, by file name (``.npy``), such as the map itself.

    Raises:
        CompatError: When ``out`` exists, a source lacks images or has other views, codes would be
            made of codes, the metric does not fit, or a transformed vector is zero or not finite.
    """
    spaces = (sources,) if isinstance(sources, GallerySpace) else tuple(sources)
    first, out = spaces[0], Path(out)
    _check_metric(metric, codes)
    if codes is not None:
        for space in spaces:
            check_plain(space)
    rows = [_matching_rows(space, first) for space in spaces]
    places = _matching_views(spaces, rows)
    convert = _converter(transform, codes, metric, first.vectors.dtype, first.path)
    probe = convert([_block(s.vectors, r, 0, 1) for s, r in zip(spaces, rows, strict=True)], "", 0)
    _check_classifier(classifier, first, codes.dimension if codes else probe.shape[1])

    folder = fresh_folder(out)
    try:
        views = first.view_recipe.count if first.view_recipe is not None else 0
        total = len(first) + views * len(first.view_rows)
        with tqdm(total=total, desc="deriving vectors", unit="vectors") as bar:
            target = _array(folder / (CODES if codes else VECTORS), probe, (len(first),))
            _fill(target, [s.vectors for s in spaces], rows, convert, "vector", bar)
            if places is not None:
                np.save(folder / VIEW_ROWS, first.view_rows)
                shape = (views, len(first.view_rows))
                target = _array(folder / (VIEW_CODES if codes else VIEW_VECTORS), probe, shape)
                for view in range(views):
                    vectors = [s.view_vectors[view] for s in spaces if s.view_vectors is not None]
                    _fill(target[view], vectors, places, convert, f"view {view}, vector", bar)
            target.flush()
        return seal(
            folder,
            out,
            ids=first.ids,
            labels=first.labels,
            classifier=classifier,
            description=Description(
                metric=metric,
                classes=first.classes,
                model=_joined([space.manifest.model for space in spaces]),
                model_digest=_joined([space.manifest.model_digest for space in spaces]),
                model_macs=_total(spaces),
                preprocessing=first.preprocessing,
                data=first.manifest.data,
                view_recipe=first.view_recipe,
                derivation=_steps(spaces, derivation),
            ),
            coder=codes,
            learned=learned,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already when sealed


def training_sample(space: GallerySpace, *, seed: int) -> np.ndarray:
    """Float32 vectors (at most 200,000, d) of a gallery to learn a map from, drawn without labels.

    The whole gallery when it is not larger, else a seeded sample.

    Raises:
        CompatError: A vector is not finite or is zero.
    """
    rows: Any = slice(None)
    if len(space) > _SAMPLE:
        drawn = np.random.default_rng(seed).choice(len(space), _SAMPLE, replace=False)
        rows = np.sort(drawn)
    sample = np.asarray(space.vectors[rows], dtype=np.float32)
    check_vectors(sample, f"{space.path}: of the vectors to learn from,")
    return sample


def check_plain(space: GallerySpace) -> None:
    """Raise CompatError when a gallery holds codes, which nothing should be learnt from."""
    if isinstance(space.vectors, Codes):
        raise CompatError(
            f"{space.path} holds codes of {space.bytes_per_vector} bytes instead of vectors: name "
            "the gallery that it was made from."
        )


def _converter(
    transform: Callable[..., np.ndarray],
    coder: Coder | None,
    metric: str,
    dtype: np.dtype[Any],
    name: Path,
) -> _Convert:
    """What turns one block per source into the rows that are stored; ``name`` is for errors."""

    def convert(blocks: Sequence[np.ndarray], what: str, start: int) -> np.ndarray:
        made = np.asarray(transform(*blocks), dtype=np.float32)
        width = coder.dimension if coder is not None else made.shape[-1]
        if made.shape != (len(blocks[0]), width):
            raise CompatError(
                f"The transform gave an array of shape {made.shape} for {len(blocks[0])} vectors, "
                f"expected ({len(blocks[0])}, {width if coder else 'dimension'}): mend it."
            )
        check_vectors(made, f"{name}: the derived {what}", start)
        if metric == "cosine":
            made = made / np.linalg.norm(made, axis=1, keepdims=True)
        return made.astype(dtype) if coder is None else coder.encode(made)

    return convert


def _block(vectors: Vectors, rows: _Rows, start: int, stop: int) -> np.ndarray:
    chosen = vectors[start:stop] if rows is None else vectors[rows[start:stop]]
    return np.asarray(chosen, dtype=np.float32)


def _array(path: Path, like: np.ndarray, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Room on disk for rows such as those of ``like`` (B, width)."""
    return np.lib.format.open_memmap(
        path, mode="w+", dtype=like.dtype, shape=(*shape, like.shape[1])
    )


def _fill(
    target: np.ndarray,
    vectors: Sequence[Vectors],
    rows: Sequence[_Rows],
    convert: _Convert,
    what: str,
    bar: tqdm[Any],
) -> None:
    for start in range(0, len(target), _ROWS):
        stop = min(start + _ROWS, len(target))
        blocks = [_block(v, r, start, stop) for v, r in zip(vectors, rows, strict=True)]
        target[start:stop] = convert(blocks, what, start)
        bar.update(stop - start)


def _matching_rows(space: GallerySpace, first: GallerySpace) -> _Rows:
    """Rows of ``space`` with the images of ``first``, in the order of ``first``."""
    if np.array_equal(space.encoded_ids, first.encoded_ids):
        return None
    return space.rows(first.ids)


def _matching_views(spaces: Sequence[GallerySpace], rows: Sequence[_Rows]) -> list[_Rows] | None:
    """Per source where the views of the first source's `view_rows` stand; None without views."""
    first = spaces[0]
    if all(space.view_recipe is None for space in spaces):
        return None
    places: list[_Rows] = []
    for space, matching in zip(spaces, rows, strict=True):
        wanted = first.view_rows if matching is None else matching[first.view_rows]
        same_pixels = space.view_recipe == first.view_recipe and _fit(space) == _fit(first)
        if first.view_recipe is not None and first.view_recipe.mixed:  # with others of the viewed
            same_pixels &= len(space.view_rows) == len(first.view_rows)
        if not same_pixels or not np.isin(wanted, space.view_rows).all():
            raise CompatError(
                f"{space.path} and {first.path} hold views of other images, or other views: build "
                "them with the same --views, --seed, --val and --test."
            )
        order = np.argsort(space.view_rows)
        places.append(order[np.searchsorted(space.view_rows, wanted, sorter=order)])
    return places


def _fit(space: GallerySpace) -> str | None:
    return space.preprocessing.fit if space.preprocessing is not None else None


def _check_metric(metric: str, coder: Coder | None) -> None:
    if metric not in get_args(Metric):
        raise CompatError(f"Unknown metric {metric!r}: use one of {', '.join(get_args(Metric))}.")
    if (metric == "hamming") != isinstance(coder, SignCoder):
        raise CompatError(
            f"Metric {metric!r} does not go with {'signs' if metric != 'hamming' else 'floats'}: "
            "use 'hamming' for vectors of signs, and only for them."
        )


def _check_classifier(classifier: np.ndarray | None, first: GallerySpace, dimension: int) -> None:
    expected = (len(first.classes), dimension)
    if classifier is not None and classifier.shape != expected:
        raise CompatError(
            f"The classifier has shape {classifier.shape}, expected {expected}: one row for each "
            f"class of {first.path}, in the new dimension."
        )


def _joined(names: Sequence[str | None]) -> str | None:
    known = list(dict.fromkeys(name for name in names if name is not None))
    return " + ".join(known) if None not in names else None


def _total(spaces: Sequence[GallerySpace]) -> int | None:
    """MACs of one image through every gallery network, each counted once."""
    by_model = {
        space.manifest.model_digest or space.path: space.manifest.model_macs for space in spaces
    }
    known = [count for count in by_model.values() if count is not None]
    return sum(known) if len(known) == len(by_model) else None


def _steps(spaces: Sequence[GallerySpace], derivation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that led to a single source, then this one; several sources keep theirs apart."""
    if len(spaces) == 1:
        source = {"gallery": spaces[0].path.name, "fingerprint": spaces[0].fingerprint}
        return [*map(dict, spaces[0].manifest.derivation), {**derivation, "sources": [source]}]
    sources = [
        {
            "gallery": space.path.name,
            "fingerprint": space.fingerprint,
            "derivation": list(space.manifest.derivation),
        }
        for space in spaces
    ]
    return [{**derivation, "sources": sources}]
