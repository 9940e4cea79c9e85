"""A data set seen through a gallery space: what is trained on, selected on and reported."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat.data import ImageSet, Retrieval, Splits, decode_views, open_data, split
from compat.data.preprocessing import Fit
from compat.errors import CompatError
from compat.evaluation import Truth
from compat.gallery import GallerySpace
from compat.targets import AlignmentTargets
from compat.tasks.retrieval import RetrievalTask, readable
from compat.tasks.split import SplitConfig
from compat.tasks.training_set import TrainingSet

logger = logging.getLogger("querynas")

_MISSING_SHARE = 0.01  # of the images, as for broken ones when a gallery is built


@dataclass(frozen=True, eq=False)
class StudyData:
    """A data set seen through a gallery space: what is trained on, selected on and reported."""

    images: ImageSet
    gallery: GallerySpace
    splits: Splits
    fit: Fit

    @cached_property
    def val(self) -> RetrievalTask:
        """The task that searches select on: validation classes."""
        return self._task(self.splits.val)

    @cached_property
    def test(self) -> RetrievalTask:
        """The task that tables report: test classes."""
        return self._task(self.splits.test)

    def training(self, resolution: int) -> TrainingSet:
        """Return the training pictures at ``resolution`` pixels, views of the gallery included."""
        images = self.images.take(self.splits.train)
        rows = self.gallery.rows(images.ids)
        plain = np.asarray(self.gallery.vectors[rows], dtype=np.float32)
        pictures = [readable(images, resolution, self.fit)]
        vectors = [plain]
        if self.gallery.view_recipe is not None and self.gallery.view_vectors is not None:
            place = {row: i for i, row in enumerate(self.gallery.view_rows.tolist())}
            chosen = [place[row] for row in rows.tolist()]
            pictures += list(
                decode_views(images, self.gallery.view_recipe, resolution, fit=self.fit)
            )
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


def load_study_data(data: str, gallery: str | Path, parts: SplitConfig) -> StudyData:
    """Open a data set and the gallery space that holds its vectors.

    Raises:
        CompatError: The data or the gallery cannot be read, or images lack gallery vectors.
        CompatError: The gallery's training views cover images that are to be held out here.
    """
    space = GallerySpace.open(gallery)
    images = _embedded(open_data(data), space)
    fit = space.preprocessing.fit if space.preprocessing is not None else "crop"
    splits = split(images, val=parts.val, test=parts.test, seed=parts.seed)
    if space.view_recipe is not None:
        embedded = set(space.view_rows.tolist())
        wanted = space.rows(images.ids[splits.train])
        if not embedded.issuperset(wanted.tolist()):
            raise CompatError(
                f"The gallery '{gallery}' holds views of other training images than the study's "
                f"split (val {parts.val}, test {parts.test}, seed {parts.seed}); give the study "
                "the `split` that the gallery was built with, or build the gallery anew."
            )
    return StudyData(images, space, splits, fit)


def _embedded(images: ImageSet, space: GallerySpace) -> ImageSet:
    """Leave out the few images that the gallery lacks: those that were broken when it was built."""
    known = np.isin(images.ids, space.ids)
    missing = images.ids[~known]
    if not len(missing):
        return images
    named = ", ".join(missing[:5].tolist())
    if len(missing) > _MISSING_SHARE * len(images):
        raise CompatError(
            f"The gallery '{space.path}' has no vectors for {len(missing)} of the {len(images)} "
            f"images of '{images.spec}' ({named}, …); give the data that the gallery was built "
            "from, or build it again."
        )
    logger.warning("%d images have no gallery vector and are left out: %s", len(missing), named)
    return images.take(np.flatnonzero(known))


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
