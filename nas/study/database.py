"""Optuna's database of a run: opened with care, since anyone may have written it."""

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from nas.config.objectives import OBJECTIVES
from nas.errors import StudyError
from nas.study.front import scored
from searchspaces.support.errors import reason
from searchspaces.support.reading import check_file

_BYTES = 1 << 30
_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # magic number of SQLite's journals
_SECONDS = 60  # to wait for another process that writes


def sqlite_url(file: Path) -> str:
    """Return the storage URL of a SQLite file."""
    return f"sqlite:///{file}"


def check_sqlite(file: Path) -> None:
    """Refuse a file that is no plain SQLite database: one with views or triggers computes.

    What a killed process left half-written is rolled back.

    Raises:
        StudyError: It is one, or it is missing, too large or cannot be read, or the journal beside
            it names another journal, which SQLite would delete.
    """
    remedy = "restore it, or search again with another --out"
    check_file(file, at_most=_BYTES, error=StudyError, remedy=remedy)
    _check_journal(file.with_name(f"{file.name}-journal"))
    try:
        uri = f"file:{quote(str(file.absolute()))}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_SECONDS)) as database:
            odd = database.execute(
                "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') LIMIT 1"
            ).fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StudyError(f"'{file}' is no SQLite database ({reason(error)}); {remedy}.") from error
    if odd is not None:
        raise StudyError(f"'{file}' has the {odd[0]} '{odd[1]}', not only tables; {remedy}.")


def _check_journal(journal: Path) -> None:
    """Refuse a journal of several databases: rolling it back deletes a file that it names.

    https://www.sqlite.org/fileformat2.html#the_rollback_journal; the name ends in the magic number.
    """
    if not journal.exists():
        return
    check_file(journal, at_most=2 * _BYTES, error=StudyError, remedy="remove it")
    with journal.open("rb") as content:
        content.seek(max(0, journal.stat().st_size - len(_JOURNAL)))
        if content.read() == _JOURNAL:
            raise StudyError(
                f"The journal '{journal}' belongs to several databases, which querynas never "
                "writes; remove it, or restore the run."
            )


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's storage, with a heartbeat so that trials of killed workers run again.

    Raises:
        StudyError: The URL is none, its driver is missing or its database cannot be reached.
    """
    arguments = {"timeout": _SECONDS} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(
            url,
            engine_kwargs={"connect_args": arguments},
            heartbeat_interval=20,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=2),
        )
    except Exception as error:  # of Optuna, SQLAlchemy and the driver, which share no type
        raise StudyError(
            f"The storage '{url}' cannot be opened ({reason(error)}); give the URL of a database "
            "such as sqlite:///trials.db, or leave out --storage."
        ) from error


def open_study(
    storage: RDBStorage, name: str, *, objectives: Sequence[str], routes: Collection[str]
) -> optuna.Study:
    """Open a study, and read all of its trials once.

    Args:
        storage: Where it is.
        name: Its name.
        objectives: The objectives that its trials have values for.
        routes: The names of its search spaces.

    Raises:
        StudyError: There is no such study, or it or a trial is not as querynas leaves it.
    """
    try:
        if name not in optuna.get_all_study_names(storage):
            raise StudyError("there is no such study, run `querynas search` first")
        study = optuna.load_study(study_name=name, storage=storage)
        found = [direction.name.lower() for direction in study.directions]
        wanted = [OBJECTIVES[objective].direction for objective in objectives]
        if found != wanted:
            raise StudyError(f"its objectives are {found}, not {wanted} for {list(objectives)}")
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if len(trial.values) != len(objectives) or not all(map(_is_number, trial.values)):
                raise StudyError(f"trial {trial.number} has the values {trial.values}")
        known: set[int] = set()
        for record in scored(study):
            if record.route not in routes:
                raise StudyError(f"trial {record.trial} is of the unknown space '{record.route}'")
            if record.parent is not None and record.parent not in known:
                raise StudyError(
                    f"trial {record.trial} comes from trial {record.parent}, not scored"
                )
            known.add(record.trial)
    except Exception as error:  # Optuna meets what is in the database unprepared
        raise StudyError(
            f"The study '{name}' in '{storage.url}' cannot be read ({reason(error)}); restore the "
            "database, or search again with another --out."
        ) from error
    return study


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
