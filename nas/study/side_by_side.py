"""Trainings of several candidates at once, each in a process of its own."""

import hashlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.config.study import RungConfig
from nas.errors import StudyError
from nas.study.front import Record
from nas.study.processes import process
from nas.study.run import Run
from pruning import load_model, save_model
from searchspaces import QueryModel
from searchspaces.support.errors import QuerynasError
from searchspaces.support.files import write_atomically

logger = logging.getLogger("querynas")


def train(run: Run, record: Record, rung: RungConfig, *, title: str | None) -> QueryModel:
    """Return a candidate that was aligned on as a rung says; a stopped training continues.

    Without a ``title`` it shows no progress bar.
    """
    model = run.model(record)
    run.aligner.align(
        model,
        rung.training_of(record.macs, run.config.budget),
        checkpoint=_checkpoint(run, record),
        pretrained=run.routes[record.route].pretrained,
        title=title or f"finish trial {record.trial}",
        quiet=title is None,
    )
    return model


def forget(run: Run, record: Record) -> None:
    """Remove what the training of a candidate left, once its result is a trial."""
    _checkpoint(run, record).unlink(missing_ok=True)
    for file in (run.path / "shared").glob(f"finish-{record.trial}-*.safetensors"):
        file.unlink()


def _checkpoint(run: Run, record: Record) -> Path:
    return run.path / "shared" / f"finish-{record.trial}.checkpoint"


def _result(run: Run, record: Record, rung: RungConfig) -> Path:
    """Where the result of a training waits; a rung that was changed since has another place."""
    digest = hashlib.sha256(rung.model_dump_json(exclude={"models"}).encode()).hexdigest()
    return run.path / "shared" / f"finish-{record.trial}-{digest[:12]}.safetensors"


def train_all(
    run: Run, records: Sequence[Record], rung: RungConfig, *, threads: int
) -> list[QueryModel]:
    """Return candidates that were aligned on at the same time, in their order.

    Args:
        run: The run; what its candidates share is prepared.
        records: The candidates.
        rung: How they are trained.
        threads: Threads of each process.

    Raises:
        StudyError: A training failed; what the others reached is kept for the next attempt.
    """
    files = [_result(run, record, rung) for record in records]
    number = run.config.finish.index(rung)
    begun = [
        process(_train, str(run.path), record.trial, number, str(file), threads=threads)
        for record, file in zip(records, files, strict=True)
        if not file.exists()
    ]
    for each in begun:
        each.start()
    try:
        for each in begun:
            each.join()
    finally:
        for each in begun:
            each.kill()
    missing = [r.trial for r, file in zip(records, files, strict=True) if not file.exists()]
    if missing:
        raise StudyError(
            f"The training of trial {', '.join(map(str, missing))} of '{run.path}' ended before "
            "its time; give the same command again, with fewer --workers where memory is short."
        )
    return [load_model(file) for file in files]


def _train(path: str, trial: int, number: int, file: str) -> None:
    """Train one candidate in this process."""
    try:
        run = Run.open(path)
        run.prepare()
        record = next(r for r in run.records() if r.trial == trial)
        model = train(run, record, run.config.finish[number], title=None)
        write_atomically(Path(file), lambda temporary: save_model(model, temporary))
    except QuerynasError as error:
        logger.error("%s", error)
        sys.exit(1)
