"""What killed processes left: no trial stays running for good, no database half-written."""

import logging
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.errors import StudyError
from nas.study import unfinished
from nas.study.database import check_sqlite, open_storage, sqlite_url
from nas.study.front import ADAPTED
from nas.study.unfinished import close, sign

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RDBStorage]:
    storage = open_storage(sqlite_url(tmp_path / "study.db"))
    storage.heartbeat_interval = 1
    yield storage
    storage.remove_session()


@pytest.fixture
def study(storage: RDBStorage) -> optuna.Study:
    return optuna.create_study(storage=storage)


def states(study: optuna.Study) -> list[TrialState]:
    return [t.state for t in study.get_trials(deepcopy=False)]


def test_a_trial_killed_while_it_was_proposed_is_closed(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.ask()
    monkeypatch.setattr(unfinished, "_PROPOSING", 0)
    close(study)
    assert states(study) == [TrialState.FAIL]


@pytest.mark.parametrize("attributes", [{"parent": 0}, {"parent": None, "fidelity": ADAPTED}])
def test_a_trial_whose_weights_were_never_stored_is_closed(
    study: optuna.Study, attributes: dict[str, object]
) -> None:
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params={"width": 1},
            distributions={"width": IntDistribution(1, 2)},
            user_attrs=attributes,
        )
    )
    close(study)
    assert states(study) == [TrialState.FAIL]


def test_a_killed_trial_is_closed_when_its_heartbeat_is_old(
    study: optuna.Study, storage: RDBStorage
) -> None:
    trial = study.ask()
    trial.suggest_int("width", 1, 2)
    storage.record_heartbeat(trial._trial_id)
    begun = time.monotonic()
    close(study)
    assert states(study)[0] == TrialState.FAIL
    assert time.monotonic() - begun > 1


@pytest.mark.parametrize("process", ["this", "ended"])
def test_a_trial_of_an_ended_process_is_closed_at_once(
    study: optuna.Study, storage: RDBStorage, process: str
) -> None:
    storage.heartbeat_interval = 3600
    trial = study.ask()
    trial.suggest_int("width", 1, 2)
    sign(trial)
    if process == "ended":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        trial.set_user_attr("worker", f"{socket.gethostname()}:{ended.pid}")
    storage.record_heartbeat(trial._trial_id)
    close(study)
    assert states(study) == [TrialState.FAIL]


def test_a_trial_that_ends_while_it_is_looked_at_stays_as_it_ended(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask()

    def ends(_: FrozenTrial) -> bool:
        study.tell(trial, 0.5)
        return True

    monkeypatch.setattr(unfinished, "_left", ends)
    close(study)
    assert states(study) == [TrialState.COMPLETE]


def test_what_another_worker_scores_is_waited_for(
    study: optuna.Study, storage: RDBStorage, caplog: pytest.LogCaptureFixture
) -> None:
    trial = study.ask()
    trial.suggest_int("width", 1, 2)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getppid()}")
    storage.record_heartbeat(trial._trial_id)
    worker = threading.Timer(0.5, lambda: study.tell(trial, 0.5))
    worker.start()
    with caplog.at_level(logging.INFO, "querynas"):
        close(study)
    worker.join()
    assert states(study) == [TrialState.COMPLETE]
    assert "Waiting for trial 0" in caplog.text


def test_alone_nothing_is_waited_for(study: optuna.Study) -> None:
    study.ask().suggest_int("width", 1, 2)
    close(study, alone=True)
    assert states(study) == [TrialState.FAIL]


KILLED_WHILE_WRITING = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # pages go to the file before the end
database.execute("BEGIN")
database.executemany("INSERT INTO kept VALUES (?)", [("x" * 1000,) for _ in range(1000)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A database whose process was killed while it wrote."""
    file = tmp_path / "study.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE kept (words)")
        database.execute("INSERT INTO kept VALUES ('before')")
        database.commit()
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(file)], check=False)
    assert file.with_name("study.db-journal").stat().st_size > 0
    return file


def test_a_database_is_rolled_back_to_what_it_was_before(killed: Path) -> None:
    check_sqlite(killed)
    with closing(sqlite3.connect(killed)) as database:
        assert database.execute("SELECT words FROM kept").fetchall() == [("before",)]


def test_a_journal_that_would_have_a_file_deleted_is_refused(killed: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    name = str(precious).encode()
    ending = struct.pack(">I", 0x40000000 // 4096 + 1) + name
    ending += struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    with killed.with_name("study.db-journal").open("ab") as journal:
        journal.write(ending)
    with pytest.raises(StudyError, match="belongs to several databases"):
        check_sqlite(killed)
    assert precious.exists()
    with closing(sqlite3.connect(killed)) as database:  # what it is refused for
        database.execute("SELECT words FROM kept").fetchall()
    assert not precious.exists()
