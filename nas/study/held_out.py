"""Scores on the test classes, which no search has seen."""

from pathlib import Path

from pydantic import TypeAdapter

from nas.deployment.card import Scores
from nas.errors import StudyError
from nas.study.front import Record
from nas.study.run import Run
from searchspaces import macs_by_part, measure_latency
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section


class Measured(Section):
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
        embeddings = task.embed(model)
        model.cpu()
        known[record.trial] = Measured(
            scores=Scores.of(task.score(embeddings)),
            latency=measure_latency(model, model.resolution),
            parts=macs_by_part(model, model.resolution),
        )
        content = _FILE.dump_json(known, indent=1)
        write_atomically(path, lambda file: file.write_bytes(content))
    return known[record.trial]


def _read(path: Path) -> dict[int, Measured]:
    if not path.exists():
        return {}
    remedy = "delete it, and the test classes are measured again"
    return read_json(path, dict[int, Measured], error=StudyError, remedy=remedy)
