"""An exported query model measured against a gallery."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compat.data import decode
from compat.evaluation import Score, Truth, score
from compat.evaluation.collapse import directed
from compat.gallery import GallerySpace
from compat.tasks.retrieval import RetrievalTask
from compat.tasks.study_data import load_study_data
from nas.deployment.card import Card
from nas.deployment.model_file import load_deployed
from nas.errors import StudyError


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an exported query model achieved in a gallery.

    Attributes:
        path: The model file.
        card: Its card.
        fingerprint: Of the gallery that it was measured in.
        scores: The three tests by protocol; "labels" where the data has labels, else "ranking".
        task: The test part that it was measured on.
        embeddings: What it made of the task's images, float32 (N, d).
    """

    path: Path
    card: Card
    fingerprint: str
    scores: Mapping[str, Score]
    task: RetrievalTask
    embeddings: np.ndarray


def evaluate_file(
    path: str | Path,
    gallery: str | Path,
    data: str,
    *,
    ignore_fingerprint: bool = False,
) -> Evaluation:
    """Measure an exported query model on the test part of a data set.

    Classes are divided as they were in the model's study, so that none that it was trained or
    selected on is measured.

    Args:
        path: The exported file, its card beside it.
        gallery: Gallery folder.
        data: Spec of the data set, whose images have vectors in the gallery.
        ignore_fingerprint: Allow another gallery than the model was aligned to.

    Raises:
        StudyError: The model was aligned to another gallery, or has another dimension.
        CompatError: The gallery or the data cannot be read.
    """
    deployed = load_deployed(path)
    card = deployed.card
    space = GallerySpace.open(gallery)
    if space.dimension != card.dimension:
        raise StudyError(
            f"'{path}' gives {card.dimension} dimensions, but the gallery '{gallery}' has "
            f"{space.dimension}; use the one that the model was aligned to, {card.gallery.path}."
        )
    if space.fingerprint != card.gallery.fingerprint and not ignore_fingerprint:
        raise StudyError(
            f"'{path}' was aligned to the gallery with fingerprint "
            f"{card.gallery.fingerprint[:12]}…, but '{gallery}' has {space.fingerprint[:12]}…; use "
            "that gallery, or say --any-gallery if this one is of the same gallery model."
        )
    task = load_study_data(data, gallery, card.data.split).test
    pixels = decode(task.images, card.input.resolution, fit=card.input.fit).pixels
    embeddings = directed(deployed.embed(pixels))
    scores = scores_by_protocol(task, embeddings)
    return Evaluation(Path(path), card, space.fingerprint, scores, task, embeddings)


def scores_by_protocol(task: RetrievalTask, embeddings: np.ndarray) -> dict[str, Score]:
    """Return the three tests of a query model's embeddings (N, d) by protocol.

    Data with explicit ground truth (revisited Oxford and Paris) has one per list, by trapezoid
    average precision; other data has one, which is the task's judge.
    """
    if task.images.lists is None:
        return {task.judge: task.score(embeddings)}
    queries, gallery = task.retrieval.queries, task.retrieval.gallery
    return {
        name: score(
            embeddings[queries],
            embeddings[gallery],
            task.vectors[queries],
            task.vectors[gallery],
            Truth.from_lists(lists.positives, lists.junk, len(gallery)),
            average_precision="trapezoid",
            metric=task.metric,
        )
        for name, lists in task.images.lists.items()
    }
