"""A data set seen through a gallery space: what is trained on, selected on and reported."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat.data import ImageSet, Retrieval, Splits, open_data, split
from compat.data.preprocessing import Fit
from compat.data.splits import drawn_by
from compat.errors import CompatError
from compat.gallery import GallerySpace
from compat.targets import AlignmentTargets
from compat.tasks.embedded import Embedded, embedded
from compat.tasks.retrieval import RANKED, Judge, RetrievalTask
from compat.tasks.split import SplitConfig
from compat.tasks.training_set import TrainingSet, joined

logger = logging.getLogger("querynas")


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

    def training(self, resolution: int, further: Sequence[Embedded] = ()) -> TrainingSet:
        """Return the training pictures at ``resolution`` pixels, views of the gallery included.

        Args:
            resolution: Side of the pictures.
            further: More images with vectors of the same space; their labels are not looked at.
                Of those with fewer views than others the ones they have count several times.
        """
        images = self.images.take(self.splits.train)
        known = np.unique(images.labels[images.labels >= 0])
        own = list(Embedded(images, self.gallery).pictured(resolution, self.fit))
        more = [each for source in further for each in source.pictured(resolution, self.fit)]
        parts = [*own, *more]
        alone, mixed = (max(part.alone for part in parts), max(part.mixed for part in parts))
        views = range(alone + mixed)
        vectors = [
            torch.from_numpy(np.concatenate([p.vectors[p.place(v, alone)] for p in parts]))
            for v in views
        ]
        labels = np.concatenate([part.images.labels for part in own])
        labels = np.where(labels < 0, -1, np.searchsorted(known, labels))
        labels = np.pad(labels, (0, len(vectors[0]) - len(labels)), constant_values=-1)
        labels = np.tile(labels, (len(views), 1))
        labels[alone:] = -1
        targets = AlignmentTargets(
            vectors=F.normalize(torch.cat(vectors), dim=1),
            gallery=F.normalize(vectors[0], dim=1),
            labels=torch.from_numpy(labels.ravel()),
            classifier=self._classifier([images.classes[label] for label in known]),
        )
        pictures = (
            joined([part.pictures[part.place(view, alone)] for part in parts]) for view in views
        )
        further_images = len(vectors[0]) - len(images)
        return TrainingSet(tuple(pictures), targets, further_images, mixed)

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
    images = embedded(open_data(data), space)
    fit = space.preprocessing.fit if space.preprocessing is not None else "crop"
    splits = split(images, val=parts.val, test=parts.test, seed=parts.seed, by=parts.by)
    if space.view_recipe is not None:
        viewed = set(space.view_rows.tolist())
        wanted = space.rows(images.ids[splits.train])
        if not viewed.issuperset(wanted.tolist()):
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
