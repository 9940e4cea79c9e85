"""Validation average precisions of single queries, one small file per scored candidate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nas.errors import StudyError
from nas.study.front import Record
from nas.study.run import Run
from searchspaces.support.files import write_atomically


def keep(run: Run, trial: int, ap: np.ndarray) -> None:
    """Keep the cross-test's average precisions (Q,) as float32, nan for queries without positives.

    They lie in ``query_scores/trial-N.npy`` of the run folder.
    """
    content = np.asarray(ap, np.float32)
    write_atomically(_path(run, trial), lambda file: np.save(file, content, allow_pickle=False))


def kept(run: Run, record: Record) -> np.ndarray | None:
    """Return what `keep` stored, float32 (Q,); None where an older version scored the candidate.

    Raises:
        StudyError: The file cannot be read, or is not of this run's validation queries.
    """
    path = _path(run, record.trial)
    if not path.exists():
        return None
    try:
        ap = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _unusable(path, "cannot be read") from error
    queries = len(run.data.splits.val.queries)
    if ap.shape != (queries,):
        raise _unusable(path, f"has shape {ap.shape} and not one value for {queries} queries")
    return ap


def restore(run: Run, records: Sequence[Record]) -> None:
    """Embed the validation queries again for candidates whose average precisions are missing."""
    missing = [record for record in records if not _path(run, record.trial).exists()]
    if not missing:
        return
    for record in tqdm(missing, desc="measuring single validation queries", unit="model"):
        model = run.model(record)
        queries = run.data.val.embed_queries(model)
        keep(run, record.trial, run.data.val.cross_test(queries).ap)


def _path(run: Run, trial: int) -> Path:
    return run.path / "query_scores" / f"trial-{trial}.npy"


def _unusable(path: Path, problem: str) -> StudyError:
    return StudyError(f"'{path}' {problem}; delete it, and `querynas report` measures it again.")
