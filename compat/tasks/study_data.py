"""A data set seen through a gallery space: what is trained on, selected on and reported."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat.data import ImageSet, Retrieval, Splits, decode_views, open_data, split
from compat.data.preprocessing import Fit
from compat.data.splits import drawn_by
from compat.errors import CompatError
from compat.gallery import GallerySpace
from compat.targets import AlignmentTargets
from compat.tasks.retrieval import RANKED, Judge, RetrievalTask, readable
from compat.tasks.split import SplitConfig
from compat.tasks.training_set import TrainingSet

logger = logging.getLogger("querynas")

_MISSING_SHARE = 0.01  # of the images, as for broken ones when a gallery is built


@dataclass(frozen=True, eq=False)
class StudyData:
    """A data set seen through a gallery space: what is trained on, selected on and reported.

    Attributes:
        images: All of them.
        gallery: The space that holds their vectors.
        splits: What of them is trained on, selected on and reported.
        fit: How pictures are made square.
        judge: What queries are to find.
    """

    images: ImageSet
    gallery: GallerySpace
    splits: Splits
    fit: Fit
    judge: Judge = "labels"

    @cached_property
    def val(self) -> RetrievalTask:
        """The task that searches select on."""
        return self._task(self.splits.val)

    @cached_property
    def val_otherwise(self) -> RetrievalTask | None:
        """The validation task by the other judge; None where that has nothing to say."""
        if self.judge == "ranking":
            return self.val.judged_by("labels") if self.images.labelled else None
        return self.val.judged_by("ranking") if _can_be_ranked(self.splits.val) else None

    @cached_property
    def unseen(self) -> Literal["classes", "queries"]:
        """What of the test part training has not seen: whole classes, or its queries alone."""
        labels = self.images.labels[self.splits.train]
        seen = np.isin(self.images.labels[self.splits.test.queries], labels).any()
        return "queries" if seen else "classes"

    def check_ranked(self) -> None:
        """Refuse agreement where too little is searched for the first results to mean anything.

        Raises:
            CompatError: It is so.
        """
        for part in (self.splits.val, self.splits.test):
            if not _can_be_ranked(part):
                raise CompatError(
                    f"{self.images.name}: agreement is on the first {RANKED} results, but queries "
                    f"search {len(part.gallery)} images, expected more than {2 * RANKED}: add "
                    "images, or give labels to judge by."
                )

    @cached_property
    def test(self) -> RetrievalTask:
        """The task that tables report."""
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
            vectors=np.asarray(self.gallery.vectors[rows], dtype=np.float32),
            fit=self.fit,
            metric=self.gallery.metric,
            fingerprint=self.gallery.fingerprint,
            judge=self.judge,
        )


def _can_be_ranked(part: Retrieval) -> bool:
    return len(part.gallery) > 2 * RANKED


def load_study_data(
    data: str, gallery: str | Path, parts: SplitConfig, judge: Judge | None = None
) -> StudyData:
    """Open a data set and the gallery space that holds its vectors.

    Args:
        data: Spec of the data set.
        gallery: Gallery folder.
        parts: How the data are divided.
        judge: What queries are to find; None: images of their label where there are labels, else
            what the gallery network finds.

    Raises:
        CompatError: The data or the gallery cannot be read, or images lack gallery vectors.
        CompatError: The gallery's training views cover images that are to be held out here.
        CompatError: By ranking, but too few images are searched.
    """
    space = GallerySpace.open(gallery)
    images = _embedded(open_data(data), space)
    fit = space.preprocessing.fit if space.preprocessing is not None else "crop"
    splits = split(images, val=parts.val, test=parts.test, seed=parts.seed, by=parts.by)
    if space.view_recipe is not None:
        embedded = set(space.view_rows.tolist())
        wanted = space.rows(images.ids[splits.train])
        if not embedded.issuperset(wanted.tolist()):
            raise CompatError(
                f"The gallery '{gallery}' holds views of other training images than the study's "
                f"split (val {parts.val}, test {parts.test}, seed {parts.seed}, by "
                f"{drawn_by(images, parts.by)}); give the study the `split` that the gallery was "
                "built with, or build the gallery anew."
            )
    study = StudyData(images, space, splits, fit, judge or _judge(images))
    if study.judge == "ranking":
        study.check_ranked()
        logger.info(
            "Split by %s; queries are to find what the gallery network finds first (agreement).",
            drawn_by(images, parts.by),
        )
    return study


def _judge(images: ImageSet) -> Judge:
    return "labels" if images.labelled or images.lists is not None else "ranking"


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
