"""Embedding images once with the gallery model, into a gallery space on disk."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import NonNegativeInt
from tqdm import tqdm

from compat.data.cache import decode
from compat.data.images import ImageSet
from compat.data.preprocessing import Fit, Preprocessing
from compat.data.store import write_json
from compat.data.views import ViewRecipe, decode_views
from compat.errors import CompatError
from compat.gallery.manifest import Description
from compat.gallery.models import GalleryModel
from compat.gallery.sealing import PROGRESS, check_dtype, seal, working_folder
from compat.gallery.space import VECTORS, VIEW_ROWS, VIEW_VECTORS, GallerySpace
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section, Versioned
from searchspaces.support.settings import bind_settings

_MIXED = 2  # views of each training image by default


class _Recipe(Section):
    """What is built: hashes of the gallery model, of ids and of rows, and how they are embedded."""

    model: str
    preprocessing: Preprocessing
    ids: str
    views: ViewRecipe | None
    rows: str
    dtype: str


class _Progress(Versioned):
    """How far a build has come.

    Attributes:
        recipe: What is built.
        done: Images, and views of them, that are embedded.
    """

    NEWEST: ClassVar = 3

    recipe: _Recipe
    done: NonNegativeInt


def mixed_views(out: str | Path) -> int:
    """Return how many mixed views each training image gets where nobody says it.

    Two, and in a build that was begun as many as it was begun with: before there were any, none.

    Raises:
        CompatError: The unfinished build of ``out`` cannot be read.
    """
    path = Path(f"{out}.partial", PROGRESS)
    if not path.exists():
        return _MIXED
    views = _read_progress(path).recipe.views
    return views.mixed if views is not None else 0


def build_gallery(
    images: ImageSet,
    model: GalleryModel,
    out: str | Path,
    *,
    views: ViewRecipe | None = None,
    train: ArrayLike | None = None,
    dtype: str = "float32",
    fit: Fit | None = None,
    strict: bool = False,
    cache: Path | None = None,
    block: int = 2048,
) -> GallerySpace:
    """Embed every image, then the views of the training images; vectors get length one.

    Work is kept in ``<out>.partial`` block by block: a killed build is continued by the same call
    and loses at most one block. The gallery model is not needed after this.

    Args:
        images: What the gallery holds; broken images are left out with a warning.
        model: The gallery model.
        out: New folder.
        views: Also embed these augmented views.
        train: Indices into ``images`` whose views are embedded; all when None.
        dtype: ``float32`` or ``float16`` on disk.
        fit: ``crop`` or ``squash`` instead of the model's own.
        strict: Stop at the first broken image instead of leaving it out.
        cache: Folder of decoded images, as in `compat.data.cache.decode`.
        block: Images embedded between two saves.

    Raises:
        CompatError: When ``out`` exists, ``<out>.partial`` is of another build, or the model
            gives a vector that is zero or not finite.
    """
    check_dtype(dtype)
    out = Path(out)
    folder = working_folder(out)
    preprocessing = Preprocessing(**dict(model.preprocessing) | ({"fit": fit} if fit else {}))
    decoded = decode(
        images, preprocessing.resolution, fit=preprocessing.fit, cache=cache, strict=strict
    )
    kept = decoded.images
    jobs: list[tuple[str, int | None, np.ndarray]] = [(VECTORS, None, decoded.pixels)]
    rows = _rows_of_views(images, kept, train) if views is not None else np.empty(0, np.int64)
    recipe = _Recipe(
        model=model.digest,
        preprocessing=preprocessing,
        ids=sha256("\0".join(kept.ids.tolist()).encode()).hexdigest(),
        views=views,
        rows=sha256(rows.tobytes()).hexdigest(),
        dtype=dtype,
    )
    done = _resume(folder, out, recipe)
    _array(folder / VECTORS, (len(kept), model.dimension), dtype)
    if views is not None:
        seen = decode_views(
            kept.take(rows), views, preprocessing.resolution, fit=preprocessing.fit, cache=cache
        )
        _array(folder / VIEW_VECTORS, (views.count, len(rows), model.dimension), dtype)
        np.save(folder / VIEW_ROWS, rows)
        jobs += [(VIEW_VECTORS, view, seen[view]) for view in range(views.count)]

    total = sum(len(pixels) for _, _, pixels in jobs)
    with tqdm(total=total, initial=done, desc="embedding the gallery", unit="images") as bar:
        before = 0
        for name, view, pixels in jobs:
            for start in range(max(0, done - before), len(pixels), block):
                stop = min(start + block, len(pixels))
                vectors = _unit(model.embed(pixels[start:stop]), start, name)
                target = np.lib.format.open_memmap(folder / name, mode="r+")
                (target if view is None else target[view])[start:stop] = vectors
                target.flush()
                _note(folder, recipe, before + stop)
                bar.update(stop - start)
            before += len(pixels)
    space = seal(
        folder,
        out,
        ids=kept.ids,
        labels=kept.labels,
        classifier=_classifier(model, kept.classes),
        description=Description(
            metric="cosine",
            classes=kept.classes,
            model=model.spec,
            model_digest=model.digest,
            model_macs=model.macs,
            preprocessing=preprocessing,
            data=images.spec,
            view_recipe=views,
        ),
    )
    (out / PROGRESS).unlink()
    return space


def _classifier(model: GalleryModel, classes: tuple[str, ...]) -> np.ndarray | None:
    """The gallery model's weight vectors (C, d) of ``classes``, NaN for those it does not know."""
    known = [row for row, name in enumerate(classes) if name in model.classifier]
    if not known:
        return None
    weights = np.full((len(classes), model.dimension), np.nan, dtype=np.float32)
    weights[known] = [model.classifier[classes[row]] for row in known]
    return weights


def _rows_of_views(images: ImageSet, kept: ImageSet, train: ArrayLike | None) -> np.ndarray:
    """Rows of the gallery, ascending: the training images that could be read."""
    wanted = images.ids if train is None else images.ids[np.asarray(train, dtype=np.int64)]
    return np.flatnonzero(np.isin(kept.ids, wanted))


def _unit(vectors: np.ndarray, start: int, name: str) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        row = start + int(np.flatnonzero(lengths == 0)[0])
        raise CompatError(
            f"The gallery model maps image {row} of {name} to the zero vector, which has no "
            "direction: use a model that does not, or leave that image out."
        )
    return vectors / lengths


def _array(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Make room on disk, unless it is there from the build that this one continues."""
    if not path.exists():
        write_atomically(
            path,
            lambda temporary: np.lib.format.open_memmap(
                temporary, mode="w+", dtype=dtype, shape=shape
            ).flush(),
        )


def _resume(folder: Path, out: Path, recipe: _Recipe) -> int:
    """Number of images that an earlier, killed build has embedded."""
    path = folder / PROGRESS
    if not path.exists():
        if any(folder.iterdir()):
            raise CompatError(
                f"{folder} holds something that is no unfinished build of {out}: remove it."
            )
        _note(folder, recipe, 0)
        return 0
    progress = _read_progress(path)
    bind_settings(
        f"The unfinished build {folder}",
        progress.recipe.model_dump(mode="json"),
        recipe.model_dump(mode="json"),
        error=CompatError,
        remedy="repeat its command to finish it, or remove the folder to start anew",
    )
    return progress.done


def _read_progress(path: Path) -> _Progress:
    return read_json(path, _Progress, error=CompatError, remedy=f"remove the folder {path.parent}")


def _note(folder: Path, recipe: _Recipe, done: int) -> None:
    write_json(folder / PROGRESS, _Progress(version=_Progress.NEWEST, recipe=recipe, done=done))
