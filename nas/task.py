"""The pictures, gallery vectors and ground truth that one study works on."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.data import ImageSet, Retrieval, Splits, decode, decode_views, open_data, split
from compat.embedding import embed
from compat.evaluation import Metric, Retrieved, Score, Truth, evaluate
from compat.gallery import GallerySpace
from compat.targets import AlignmentTargets, Batch
from nas.config import SplitConfig
from nas.errors import StudyError
from searchspaces import folded

logger = logging.getLogger("querynas")

_MISSING_SHARE = 0.01  # of the images, as for broken ones when a gallery is built


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training pictures with the gallery vectors that they are aligned to.

    Attributes:
        pictures: One array per view, the first being the plain images; each uint8
            (N, size, size, 3), memory-mapped.
        targets: Gallery vectors and labels of view-major rows: row v·N + i is view v of image i.
    """

    pictures: tuple[np.ndarray, ...]
    targets: AlignmentTargets

    def __len__(self) -> int:
        return len(self.pictures[0])

    def epoch(
        self, size: int, *, seed: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Yield every image once, in a seeded order and each in a seeded choice of view.

        Images come as float32 (B, 3, S, S) in [0, 1], channels last; the last incomplete batch
        is left out, unless it is the only one.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self))
        views = rng.integers(len(self.pictures), size=len(self))
        for start in range(0, max(1, len(order) - size + 1), size):
            chosen = order[start : start + size]
            view = views[chosen]
            images = np.stack([self.pictures[v][i] for v, i in zip(view, chosen, strict=True)])
            rows = torch.from_numpy(view * len(self) + chosen).to(device)
            yield to_float(as_images(images), device), self.targets.batch(rows)

    def to(self, device: torch.device) -> "TrainingSet":
        """Return the same set with its targets on ``device``."""
        return TrainingSet(self.pictures, self.targets.to(device))

    def sample(self, count: int, *, seed: int) -> tuple[np.ndarray, Tensor]:
        """Return ``count`` plain training images, seeded, and their unit gallery vectors.

        Images are uint8 (count, size, size, 3), vectors float32 (count, d).
        """
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(self))[:count])
        return np.asarray(self.pictures[0][rows]), self.targets.gallery[torch.from_numpy(rows)]


def as_images(pixels: np.ndarray) -> Tensor:
    """View uint8 (B, S, S, 3) as a tensor (B, 3, S, S), channels last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Turn uint8 images into float32 in [0, 1] on ``device``."""
    return images.to(device).float().div_(255)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize images (B, 3, S, S) to ``resolution`` with antialiasing, as Pillow does.

    They are float32, or uint8 on the CPU, which is several times faster.
    """
    if images.shape[-1] == resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Queries searched in a gallery: one part (validation or test) of a data set.

    Attributes:
        images: The pictures of this part only.
        retrieval: Which of them are queries and which are the gallery.
        truth: Ground truth of every query.
        vectors: Gallery-space vectors of ``images``, float32 (N, d).
        fit: How pictures are made square.
        metric: Similarity of the gallery space.
        fingerprint: The gallery space's fingerprint.
    """

    images: ImageSet
    retrieval: Retrieval
    truth: Truth
    vectors: np.ndarray
    fit: str
    metric: Metric
    fingerprint: str

    def pixels(self, resolution: int) -> np.ndarray:
        """Return the pictures as a deployed query model sees them, uint8 (N, r, r, 3)."""
        if resolution not in self._decoded:
            self._decoded[resolution] = _readable(self.images, resolution, self.fit)
        return self._decoded[resolution]

    @cached_property
    def _decoded(self) -> dict[int, np.ndarray]:
        """Memory maps by resolution, so that thousands of files are looked at once."""
        return {}

    def embed(self, model: nn.Module, resolution: int, device: torch.device) -> np.ndarray:
        """Return the query model's embedding of every picture, float32 (N, d)."""
        return self._embed(model, resolution, device)

    def embed_queries(self, model: nn.Module, resolution: int, device: torch.device) -> np.ndarray:
        """Return the query model's embedding of every query, float32 (Q, d)."""
        return self._embed(model, resolution, device, self.retrieval.queries)

    def _embed(
        self,
        model: nn.Module,
        resolution: int,
        device: torch.device,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        pixels = self.pixels(resolution)
        with folded(model.to(device)):
            return embed(model, pixels, rows=rows, device=device, description=None)

    def score(self, embeddings: np.ndarray) -> Score:
        """Return self-test, cross-test and paragon of a query model's embeddings (N, d)."""
        return Score(
            self_test=self._test(embeddings, embeddings),
            cross_test=self.cross_test(embeddings[self.retrieval.queries]),
            paragon=self.paragon,
        )

    def cross_test(self, queries: np.ndarray) -> Retrieved:
        """Return the cross-test alone, for which the queries' embeddings (Q, d) are enough."""
        gallery = self.vectors[self.retrieval.gallery]
        return evaluate(queries, gallery, self.truth, metric=self.metric)

    @cached_property
    def paragon(self) -> Retrieved:
        """Gallery vectors on both sides, whatever the query model."""
        return self._test(self.vectors, self.vectors)

    def _test(self, asking: np.ndarray, answering: np.ndarray) -> Retrieved:
        queries, gallery = self.retrieval.queries, self.retrieval.gallery
        return evaluate(asking[queries], answering[gallery], self.truth, metric=self.metric)


@dataclass(frozen=True, eq=False)
class StudyData:
    """A data set seen through a gallery space: what is trained on, selected on and reported."""

    images: ImageSet
    gallery: GallerySpace
    splits: Splits
    fit: str

    @cached_property
    def val(self) -> RetrievalTask:
        """The task that searches select on: validation classes."""
        return self._task(self.splits.val)

    @cached_property
    def test(self) -> RetrievalTask:
        """The task that tables report: test classes."""
        return self._task(self.splits.test)

    def training(self, size: int) -> TrainingSet:
        """Return the training pictures at ``size`` pixels, views of the gallery included."""
        images = self.images.take(self.splits.train)
        rows = self.gallery.rows(images.ids)
        plain = np.asarray(self.gallery.vectors[rows], dtype=np.float32)
        pictures = [_readable(images, size, self.fit)]
        vectors = [plain]
        if self.gallery.view_recipe is not None and self.gallery.view_vectors is not None:
            place = {row: i for i, row in enumerate(self.gallery.view_rows.tolist())}
            chosen = [place[row] for row in rows.tolist()]
            pictures += list(decode_views(images, self.gallery.view_recipe, size, fit=self.fit))
            vectors += [np.asarray(v[chosen], np.float32) for v in self.gallery.view_vectors]
        known = np.unique(images.labels[images.labels >= 0])
        labels = np.where(images.labels < 0, -1, np.searchsorted(known, images.labels))
        targets = AlignmentTargets(
            vectors=F.normalize(torch.from_numpy(np.concatenate(vectors)), dim=1),
            gallery=F.normalize(torch.from_numpy(plain), dim=1),
            labels=torch.from_numpy(np.tile(labels, len(pictures))),
            classifier=self._classifier([images.classes[label] for label in known]),
        )
        return TrainingSet(tuple(pictures), targets)

    def _classifier(self, classes: list[str]) -> Tensor | None:
        """The gallery model's weight vectors of the training classes, if it has them all."""
        if self.gallery.classifier is None:
            return None
        place = {name: row for row, name in enumerate(self.gallery.classes)}
        rows = [place[name] for name in classes if name in place]
        weights = torch.from_numpy(self.gallery.classifier[rows])
        missing = len(classes) - int(weights.isfinite().all(dim=1).sum())
        if missing:
            logger.warning(
                "The gallery's classifier lacks %d of %d training classes and is left aside: "
                "losses take the class means of the gallery vectors instead.",
                missing,
                len(classes),
            )
            return None
        return weights

    def _task(self, part: Retrieval) -> RetrievalTask:
        used = np.unique(np.concatenate([part.queries, part.gallery]))
        images = self.images.take(used)
        place = Retrieval(np.searchsorted(used, part.queries), np.searchsorted(used, part.gallery))
        rows = self.gallery.rows(images.ids)
        return RetrievalTask(
            images=images,
            retrieval=place,
            truth=_truth(images, place),
            vectors=np.asarray(self.gallery.vectors[rows], dtype=np.float32),
            fit=self.fit,
            metric=self.gallery.metric,
            fingerprint=self.gallery.fingerprint,
        )


def _truth(images: ImageSet, part: Retrieval) -> Truth:
    cameras = images.camera
    return Truth.from_labels(
        images.labels[part.queries],
        images.labels[part.gallery],
        query_ids=images.ids[part.queries],
        gallery_ids=images.ids[part.gallery],
        query_cameras=None if cameras is None else cameras[part.queries],
        gallery_cameras=None if cameras is None else cameras[part.gallery],
    )


def _readable(images: ImageSet, size: int, fit: str) -> np.ndarray:
    """Decode images that all have gallery vectors; one lost would shift the rows of the others."""
    decoded = decode(images, size, fit=fit)
    if decoded.broken:
        raise StudyError(
            f"The gallery has vectors for {len(decoded.broken)} images that cannot be read now "
            f"({', '.join(decoded.broken[:5])}); restore the files, or remove them from the data."
        )
    return decoded.pixels


def _embedded(images: ImageSet, space: GallerySpace) -> ImageSet:
    """Leave out the few images that the gallery lacks: those that were broken when it was built."""
    known = np.isin(images.ids, space.ids)
    missing = images.ids[~known]
    if not len(missing):
        return images
    named = ", ".join(missing[:5].tolist())
    if len(missing) > _MISSING_SHARE * len(images):
        raise StudyError(
            f"The gallery '{space.path}' has no vectors for {len(missing)} of the {len(images)} "
            f"images of '{images.spec}' ({named}, …); give the data that the gallery was built "
            "from, or build it again."
        )
    logger.warning("%d images have no gallery vector and are left out: %s", len(missing), named)
    return images.take(np.flatnonzero(known))


def load_study_data(data: str, gallery: str | Path, parts: SplitConfig) -> StudyData:
    """Open a data set and the gallery space that holds its vectors.

    Raises:
        CompatError: The data or the gallery cannot be read, or images lack gallery vectors.
        StudyError: The gallery's training views cover images that are to be held out here.
    """
    space = GallerySpace.open(gallery)
    images = _embedded(open_data(data), space)
    fit = space.preprocessing.fit if space.preprocessing is not None else "crop"
    splits = split(images, val=parts.val, test=parts.test, seed=parts.seed)
    if space.view_recipe is not None:
        embedded = set(space.view_rows.tolist())
        wanted = space.rows(images.ids[splits.train])
        if not embedded.issuperset(wanted.tolist()):
            raise StudyError(
                f"The gallery '{gallery}' holds views of other training images than the study's "
                f"split (val {parts.val}, test {parts.test}, seed {parts.seed}); give the study "
                "the `split` that the gallery was built with, or build the gallery anew."
            )
    return StudyData(images, space, splits, fit)
