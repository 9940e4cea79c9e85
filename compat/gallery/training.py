"""Training a gallery model where no pretrained one is at hand."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compat.data.cache import decode
from compat.data.images import ImageSet
from compat.data.preprocessing import Fit, Preprocessing
from compat.data.splits import Retrieval, Splits
from compat.data.views import ViewRecipe, decode_views
from compat.device import has_fast_bfloat16, pick_device
from compat.embedding import embed
from compat.errors import CompatError
from compat.evaluation import Retrieved, Truth, evaluate
from compat.gallery.models import save_gallery_model, trained_network
from compat.images import as_images, to_float
from compat.losses.margin import CosFace
from compat.training import Course, Descent, fit
from compat.training.checkpoint import Checkpoint
from searchspaces.support.seeding import seeded

_HASHED_AS = {"backbone": "arch", "resolution": "size", "lr": "learning_rate"}
"""Names of a recipe's fields in the hash that begun trainings are bound to: those of the first."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How a gallery model is trained.

    Attributes:
        backbone: ``timm:NAME``, from a random start.
        dimension: Width of the embedding.
        resolution, fit: Input in pixels, and how pictures are brought to it.
        epochs: Passes over the training images.
        views: Augmented pictures per image to draw from, besides the image itself.
        flip: Mirror half of the pictures.
        batch: Images per step.
        lr: Peak of the one-cycle schedule of AdamW.
        weight_decay: Of AdamW.
        scale, margin: Of CosFace.
        seed: Of weights and order.
    """

    backbone: str = "timm:resnet18"
    dimension: int = 256
    resolution: int = 64
    fit: Fit = "crop"
    epochs: int = 20
    views: int = 4
    flip: bool = True
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    scale: float = 32.0
    margin: float = 0.2
    seed: int = 0


def train_gallery_model(
    images: ImageSet,
    splits: Splits,
    out: str | Path,
    recipe: TrainingRecipe | None = None,
    *,
    strict: bool = False,
    cache: Path | None = None,
) -> Retrieved | None:
    """Train an embedding on the training classes only, and write it as one safetensors file.

    Backbone, Linear and BatchNorm under CosFace, with AdamW and the one-cycle schedule (Smith,
    Topin, "Super-Convergence", 2018). Each epoch shows every image once, as itself or as one of
    its views. State is saved every epoch beside ``out``; a killed run is continued by the same
    call and ends in the same weights.

    Args:
        images: With labels.
        splits: Of ``images``; training never sees anything but ``splits.train``.
        out: New file, ending in ``.safetensors``.
        recipe: `TrainingRecipe` with its defaults when None.
        strict: Stop at the first broken image instead of leaving it out.
        cache: Folder of decoded images.

    Returns:
        The paragon M(g,g) on the validation part, which is also printed to stderr; None when that
        part is empty.

    Raises:
        CompatError: When there is nothing to train on, ``out`` exists or has another ending, an
            unfinished run beside it has another recipe, or the loss stops being finite.
    """
    recipe = recipe or TrainingRecipe()
    out = _new_file(Path(out))
    data = _TrainingData.load(images, splits.train, recipe, strict, cache)
    device = pick_device()
    preprocessing = Preprocessing(resolution=recipe.resolution, fit=recipe.fit)
    with seeded(recipe.seed):
        model = trained_network(recipe.backbone, recipe.dimension, preprocessing)
        loss = CosFace(recipe.dimension, len(data.names), scale=recipe.scale, margin=recipe.margin)
    trained = nn.ModuleDict({"model": model.to(memory_format=torch.channels_last), "loss": loss})
    optimizer = torch.optim.AdamW(
        trained.to(device).parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    steps = len(_batches(np.arange(len(data.labels)), recipe.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=max(2, recipe.epochs * steps)
    )
    checkpoint = Checkpoint(out.with_name(f"{out.name}.partial"), _settings(recipe, data))

    def losses(drawn: tuple[np.ndarray, np.ndarray], _: int) -> Iterator[Tensor]:
        pixels, labels = drawn
        embeddings = model(to_float(as_images(pixels), device)).float()
        with torch.autocast(device.type, enabled=False):
            yield loss(embeddings, torch.from_numpy(labels).to(device))

    fit(
        trained,
        losses,
        Course(recipe.epochs, steps, lambda epoch: data.epoch(epoch, recipe), recipe.seed),
        Descent(optimizer, schedule, device=device, half=has_fast_bfloat16(device)),
        title="train the gallery network",
        remedy=f"lower the learning rate ({recipe.lr})",
        checkpoint=checkpoint,
    )
    save_gallery_model(
        model.cpu(),
        out,
        backbone=recipe.backbone,
        dimension=recipe.dimension,
        preprocessing=preprocessing,
        classifier=loss.weight,
        classes=data.names,
    )
    checkpoint.path.unlink(missing_ok=True)
    return _paragon(model, images, splits.val, preprocessing, cache)


@dataclass(frozen=True)
class _TrainingData:
    pixels: np.ndarray  # (N, S, S, 3)
    views: np.ndarray | None  # (V, N, S, S, 3)
    labels: np.ndarray  # (N,) indices into names
    names: list[str]  # of the classes
    ids: list[str]

    @classmethod
    def load(
        cls,
        images: ImageSet,
        train: np.ndarray,
        recipe: TrainingRecipe,
        strict: bool,
        cache: Path | None,
    ) -> _TrainingData:
        labelled = train[images.labels[train] >= 0]
        if len(np.unique(images.labels[labelled])) < 2:
            raise CompatError(
                f"{images.name} has {len(labelled)} labelled training images of "
                f"{len(np.unique(images.labels[labelled]))} classes, expected 2 classes or more: "
                "a gallery model learns to tell classes apart."
            )
        decoded = decode(
            images.take(labelled), recipe.resolution, fit=recipe.fit, strict=strict, cache=cache
        )
        views = None
        if recipe.views:
            # mirroring is drawn anew in every epoch instead
            drawn = ViewRecipe(count=recipe.views, seed=recipe.seed, flip=False)
            views = decode_views(
                decoded.images, drawn, recipe.resolution, fit=recipe.fit, cache=cache
            )
        known, labels = np.unique(decoded.images.labels, return_inverse=True)
        names = [decoded.images.classes[label] for label in known]
        return cls(decoded.pixels, views, labels, names, decoded.images.ids.tolist())

    def epoch(self, number: int, recipe: TrainingRecipe) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield every image once, in batches, with its label."""
        rng = np.random.default_rng([recipe.seed, number - 1])
        for rows in _batches(rng.permutation(len(self.labels)), recipe.batch):
            yield self._draw(rows, rng, flip=recipe.flip), self.labels[rows]

    def _draw(self, rows: np.ndarray, rng: np.random.Generator, *, flip: bool) -> np.ndarray:
        """One picture of each image: itself or a view, perhaps mirrored."""
        pixels = np.array(self.pixels[rows])
        if self.views is not None:
            drawn = rng.integers(-1, len(self.views), size=len(rows))
            of_views = np.flatnonzero(drawn >= 0)
            pixels[of_views] = self.views[drawn[of_views], rows[of_views]]
        if flip:
            mirrored = np.flatnonzero(rng.random(len(rows)) < 0.5)
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        return pixels


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of about equal size; BatchNorm cannot learn from a single image."""
    parts = np.array_split(rows, math.ceil(len(rows) / size))
    return [part for part in parts if len(part) > 1]


def _settings(recipe: TrainingRecipe, data: _TrainingData) -> dict[str, Any]:
    """What an unfinished training is bound to."""
    hashed = {_HASHED_AS.get(name, name): value for name, value in asdict(recipe).items()}
    content = json.dumps([hashed, data.labels.tolist(), data.ids])
    return {**asdict(recipe), "recipe and images": sha256(content.encode()).hexdigest()}


def _new_file(out: Path) -> Path:
    if out.suffix != ".safetensors":
        raise CompatError(f"The gallery model {out} must end in .safetensors.")
    if out.exists():
        raise CompatError(f"{out} exists already: choose another file or remove it.")
    return out


def _paragon(
    model: nn.Module,
    images: ImageSet,
    val: Retrieval,
    preprocessing: Preprocessing,
    cache: Path | None,
) -> Retrieved | None:
    if not len(val.queries) or not len(val.gallery):
        return None
    rows = np.union1d(val.queries, val.gallery)
    decoded = decode(
        images.take(rows), preprocessing.resolution, fit=preprocessing.fit, cache=cache
    )
    found = decoded.images
    queries = np.flatnonzero(np.isin(found.ids, images.ids[val.queries]))
    gallery = np.flatnonzero(np.isin(found.ids, images.ids[val.gallery]))
    vectors = embed(model, decoded.pixels, description="embedding validation images")
    truth = Truth.from_labels(
        found.labels[queries],
        found.labels[gallery],
        query_ids=found.ids[queries],
        gallery_ids=found.ids[gallery],
        query_cameras=None if found.camera is None else found.camera[queries],
        gallery_cameras=None if found.camera is None else found.camera[gallery],
    )
    result = evaluate(vectors[queries], vectors[gallery], truth)
    low, high = result.interval
    print(
        f"validation paragon: mAP {result.map:.3f} [{low:.3f}, {high:.3f}], "
        f"R@1 {result.recall[1]:.3f}, {result.queries} queries",
        file=sys.stderr,
    )
    return result
