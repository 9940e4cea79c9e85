"""Synthetic galleries: classes that scatter about their means, some of them held out."""

from pathlib import Path

import numpy as np

from compat.data.views import ViewRecipe
from compat.evaluation import Retrieved, Truth, evaluate
from compat.gallery import GallerySpace
from compat.gallery.manifest import Description
from compat.gallery.sealing import fresh_folder, seal
from compat.gallery.space import VECTORS, VIEW_ROWS, VIEW_VECTORS

CLASSES, PER_CLASS, HELD_OUT = 60, 12, 20
LABELS = np.repeat(np.arange(CLASSES), PER_CLASS)
TRAIN = np.flatnonzero(LABELS < CLASSES - HELD_OUT)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scattered(noise: float, *, seed: int, width: int = 64, hidden: int = 12) -> np.ndarray:
    """Vectors (N, width): class means in a subspace, and noise in all directions."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, hidden)))[0]
    means = unit(rng.normal(size=(CLASSES, hidden))) @ basis.T
    spread = rng.normal(size=(len(LABELS), width)) / np.sqrt(width)
    return unit(means[LABELS] + noise * spread)


def write(
    out: Path,
    vectors: np.ndarray,
    *,
    views: int = 0,
    labelled: bool = True,
    order: np.ndarray | None = None,
    recipe_seed: int = 0,
) -> GallerySpace:
    """Seal vectors as a gallery, the training rows with views that jitter a little."""
    order = np.arange(len(vectors)) if order is None else order
    folder = fresh_folder(out)
    np.save(folder / VECTORS, vectors[order].astype(np.float32))
    recipe = None
    if views:
        recipe = ViewRecipe(count=views, seed=recipe_seed)
        rows = np.flatnonzero(np.isin(order, TRAIN))
        np.save(folder / VIEW_ROWS, rows)
        rng = np.random.default_rng(7)
        jitter = 0.02 * rng.normal(size=(views, len(vectors), vectors.shape[1]))
        made = [unit(vectors + shift)[order][rows] for shift in jitter]
        np.save(folder / VIEW_VECTORS, np.stack(made).astype(np.float32))
    return seal(
        folder,
        out,
        ids=[f"{row:04}" for row in order],
        labels=LABELS[order] if labelled else None,
        classifier=None,
        description=Description(
            metric="cosine",
            classes=tuple(f"class {c:02}" for c in range(CLASSES)) if labelled else (),
            view_recipe=recipe,
        ),
    )


def held_out_map(space: GallerySpace) -> float:
    """Paragon mAP of a gallery on the classes that no training may have seen."""
    rows = np.setdiff1d(np.arange(len(LABELS)), TRAIN)
    vectors = np.asarray(space.vectors[rows])
    ids = rows.astype(str)
    truth = Truth.from_labels(LABELS[rows], LABELS[rows], query_ids=ids, gallery_ids=ids)
    found: Retrieved = evaluate(vectors, vectors, truth, metric=space.metric)
    return found.map
