"""What retrieval looks like: queries, and what gallery network and query models find for them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from compat.data import ImageSet
from compat.data.preprocessing import Fit, fit_image
from compat.evaluation import top_k
from compat.tasks.retrieval import RetrievalTask

_SIDE = 128  # pixels of an embedded picture; smaller ones stay as they are
_FOUND = 5


@dataclass(frozen=True)
class Picture:
    """One picture for a page.

    Attributes:
        source: WebP as a data URL.
        name: Id of the image.
        label: Its class.
    """

    source: str
    name: str
    label: str


@dataclass(frozen=True)
class Found:
    """A retrieved picture, and whether it is a positive of the query."""

    picture: Picture
    right: bool


@dataclass(frozen=True)
class Example:
    """One query and the first results by each way to embed it, best first.

    Attributes:
        query: The query picture.
        results: Results by title of the embedding; the gallery network's come first.
    """

    query: Picture
    results: Mapping[str, Sequence[Found]]


def examples(
    task: RetrievalTask, embeddings: Mapping[str, np.ndarray], *, count: int = 8, seed: int = 0
) -> list[Example]:
    """Draw queries whose first result by the first query model is right and wrong, half and half.

    Where there are too few of one kind, the other fills up. Queries without positives are left out.

    Args:
        task: Queries, gallery and ground truth.
        embeddings: Query-model embeddings (N, d) of the task's pictures, by title.
        count: Number of queries.
        seed: Of the draw.
    """
    queries, gallery = task.retrieval.queries, task.retrieval.gallery
    ways = {"gallery network": task.vectors} | dict(embeddings)
    askable = np.flatnonzero([len(rows) > 0 for rows in task.truth.positives])
    first = _top(task, next(iter(embeddings.values())), askable, 1)[:, 0]
    right = np.array([_is_right(task, q, row) for q, row in zip(askable, first, strict=True)])
    rng = np.random.default_rng(seed)
    chosen = _mixed(rng.permutation(askable[right]), rng.permutation(askable[~right]), count)
    found = {title: _top(task, vectors, chosen, _FOUND) for title, vectors in ways.items()}
    return [
        Example(
            query=_picture(task.images, int(queries[query]), task.fit),
            results={
                title: [
                    Found(
                        _picture(task.images, int(gallery[row]), task.fit),
                        _is_right(task, query, row),
                    )
                    for row in rows[place]
                    if row >= 0
                ]
                for title, rows in found.items()
            },
        )
        for place, query in enumerate(chosen)
    ]


def _top(task: RetrievalTask, vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Gallery rows (n, k) that are nearest to the vectors of the task's ``queries`` (n,)."""
    return top_k(
        vectors[task.retrieval.queries[queries]],
        task.vectors[task.retrieval.gallery],
        [task.truth.ignored[query] for query in queries],
        k,
        metric=task.metric,
    )


def _is_right(task: RetrievalTask, query: np.integer, row: np.integer) -> bool:
    return bool(np.isin(row, task.truth.positives[query]))


def _mixed(successes: np.ndarray, failures: np.ndarray, count: int) -> np.ndarray:
    """Half of each, the failures last; what one side lacks the other gives."""
    wrong = min(len(failures), max(count // 2, count - len(successes)))
    return np.concatenate([successes[: count - wrong], failures[:wrong]])


def _picture(images: ImageSet, index: int, fit: Fit) -> Picture:
    image = images.source.load(index)
    label = images.labels[index]
    return Picture(
        source=_data_url(fit_image(image, min(_SIDE, *image.size), fit)),
        name=str(images.ids[index]),
        label=images.classes[label] if label >= 0 else "no class",
    )


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
