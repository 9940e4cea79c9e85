"""Scores on the test classes, which no search has seen."""

from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from compat.evaluation import Score, Truth, score
from nas.card import Part, Scores
from nas.costs import macs_by_part
from nas.errors import StudyError
from nas.files import write_atomically
from nas.front import Record
from nas.run import Run
from nas.task import RetrievalTask
from searchspaces import measure_latency


class Measured(Part):
    """What a report states of one model beyond its record.

    Attributes:
        scores: The three tests on the test classes.
        latency: Median seconds of one query in PyTorch, batch of 1, one CPU thread.
        parts: MACs by part of the network, in its order.
    """

    scores: Scores
    latency: float
    parts: dict[str, int]


_FILE = TypeAdapter(dict[int, Measured])


def measured_on_test(run: Run, record: Record) -> Measured:
    """Measure a model on the test classes, once: ``test_scores.json`` in the run folder keeps it.

    Raises:
        StudyError: That file is there but cannot be read.
    """
    path = run.path / "test_scores.json"
    known = _read(path)
    if record.trial not in known:
        model = run.model(record)
        task = run.data.test
        embeddings = task.embed(model, model.resolution, run.aligner.device)
        model.cpu()
        known[record.trial] = Measured(
            scores=Scores.of(task.score(embeddings)),
            latency=measure_latency(model, model.resolution),
            parts=macs_by_part(model),
        )
        content = _FILE.dump_json(known, indent=1)
        write_atomically(path, lambda file: file.write_bytes(content))
    return known[record.trial]


def _read(path: Path) -> dict[int, Measured]:
    if not path.exists():
        return {}
    try:
        return _FILE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise StudyError(
            f"'{path}' cannot be read ({error.errors()[0]['msg']}); delete it, and the test "
            "classes are measured again."
        ) from error


def scores_by_protocol(task: RetrievalTask, embeddings: np.ndarray) -> dict[str, Score]:
    """Return the three tests of a query model's embeddings (N, d) by protocol.

    Data with explicit ground truth (revisited Oxford and Paris) has one per list, by trapezoid
    average precision; other data has one, "labels".
    """
    if task.images.lists is None:
        return {"labels": task.score(embeddings)}
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
