"""No trial stays running for good."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from nas.study import unfinished
from nas.study.database import open_storage, sqlite_url
from nas.study.front import ADAPTED
from nas.study.unfinished import close

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


def test_what_another_worker_scores_is_waited_for(
    study: optuna.Study, storage: RDBStorage, caplog: pytest.LogCaptureFixture
) -> None:
    trial = study.ask()
    trial.suggest_int("width", 1, 2)
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
