"""Small galleries written by hand, and what every gallery made of one keeps."""

from typing import Any

import numpy as np

from compat.data import ViewRecipe
from compat.data.preprocessing import Preprocessing
from compat.gallery.manifest import Description
from compat.gallery.sealing import seal, working_folder

COUNT, WIDTH = 60, 8
RECIPE = ViewRecipe(count=2, seed=3)
STEP = {"step": "test"}


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def correlated(count: Any, width: Any, *, seed: Any = 0, rank: Any = None) -> Any:
    """Vectors whose components go together, about a mean that is not zero."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((rank or width, width)) * np.linspace(2, 0.5, rank or width)[:, None]
    return (rng.standard_normal((count, rank or width)) @ mix + 1).astype(np.float32)


def write(
    folder: Any,
    vectors: Any,
    *,
    order: Any = None,
    views: Any = True,
    metric: Any = "cosine",
    dtype: Any = "float32",
    **fields: Any,
) -> Any:
    """A gallery with labels, classes, a classifier that knows two of three, and views."""
    order = np.arange(len(vectors)) if order is None else order
    work = working_folder(folder)
    vectors = unit(vectors) if metric == "cosine" else vectors
    np.save(work / "vectors.npy", vectors[order].astype(dtype))
    rng = np.random.default_rng(1)
    if views:
        seen = np.arange(0, len(vectors), 3)
        rows = np.sort(np.argsort(order)[seen])
        jitter = rng.standard_normal((RECIPE.count, len(vectors), vectors.shape[1]))
        looks = unit(vectors + 0.1 * jitter)[:, order[rows]]
        np.save(work / "view_rows.npy", rows)
        np.save(work / "view_vectors.npy", looks.astype(dtype))
    classifier = rng.standard_normal((3, vectors.shape[1]))
    classifier[2] = np.nan
    given = {
        "ids": [f"{number:03d}.jpg" for number in order],
        "labels": order % 3,
        "classifier": classifier,
    }
    described = {
        "classes": ("a", "b", "c"),
        "metric": metric,
        "model": "timm:resnet18",
        "model_digest": "abc",
        "model_macs": 1000,
        "preprocessing": Preprocessing(resolution=32, fit="squash"),
        "data": "pictures",
        "view_recipe": RECIPE if views else None,
    }
    for name in described.keys() & fields.keys():
        described[name] = fields.pop(name)
    return seal(work, folder, **given | fields, description=Description(**described))


def assert_carried_over(derived: Any, source: Any) -> None:
    derived.verify()
    assert derived.ids.tolist() == source.ids.tolist()
    assert derived.labels.tolist() == source.labels.tolist()
    for field in ("classes", "model", "model_digest", "model_macs", "preprocessing", "data"):
        assert getattr(derived.manifest, field) == getattr(source.manifest, field), field
    assert derived.view_recipe == source.view_recipe
    assert derived.view_rows.tolist() == source.view_rows.tolist()
