"""Validation average precisions of single queries, one small file per scored candidate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from compat.gallery.arrays import map_array
from nas.errors import StudyError
from nas.study.front import Record
from nas.study.run import Run
from searchspaces.support.files import write_atomically

_REMEDY = "delete it, and `querynas report` measures it again"


def keep(folder: Path, trial: int, ap: np.ndarray) -> None:
    """Keep the cross-test's average precisions (Q,) as float32, nan for queries without positives.

    They lie in ``query_scores/trial-N.npy`` of a run's ``folder``.
    """
    content = np.asarray(ap, np.float32)
    write_atomically(_path(folder, trial), lambda file: np.save(file, content, allow_pickle=False))


def kept(run: Run, record: Record) -> np.ndarray | None:
    """Return what `keep` stored, float32 (Q,); None where an older version scored the candidate.

    Raises:
        CompatError: The file cannot be read.
        StudyError: It is not of this run's validation queries.
    """
    path = _path(run.path, record.trial)
    if not path.exists():
        return None
    ap = map_array(path, _REMEDY)
    queries = len(run.data.splits.val.queries)
    if ap.shape != (queries,) or ap.dtype != np.float32 or np.any((ap < 0) | (ap > 1)):
        raise StudyError(
            f"'{path}' holds {ap.dtype} {ap.shape}, not the average precisions of {queries} "
            f"queries; {_REMEDY}."
        )
    return ap


def restore(run: Run, records: Sequence[Record]) -> None:
    """Embed the validation queries again for candidates whose average precisions are missing."""
    missing = [record for record in records if not _path(run.path, record.trial).exists()]
    if not missing:
        return
    for record in tqdm(missing, desc="measuring single validation queries", unit="model"):
        model = run.model(record)
        queries = run.data.val.embed_queries(model)
        keep(run.path, record.trial, run.data.val.cross_test(queries).ap)


def _path(folder: Path, trial: int) -> Path:
    return folder / "query_scores" / f"trial-{trial}.npy"
