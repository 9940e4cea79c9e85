"""Trials that killed processes left unfinished."""

import logging
import os
import socket
import time
from datetime import datetime

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from nas.study.front import ADAPTED

logger = logging.getLogger("querynas")

_WORKER = "worker"
_PROPOSING = 60  # seconds after which a trial without any parameter is not being proposed any more


def close(study: optuna.Study, *, alone: bool = False) -> None:
    """Mark as failed what killed processes left, and wait for what others still score.

    Optuna's heartbeat tells them apart some 40 s later, and `sign` at once for processes of this
    machine. Trials that were killed while they were proposed have neither, nor those that are added
    by whoever has the run's turn, which the caller must have.

    Args:
        study: The study.
        alone: Whether nobody else can be at work on it.
    """
    told = False
    while True:
        fail_stale_trials(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        left = [t.number for t in running if alone or _left(t)]
        for number in left:  # whose process may have ended since because it was done
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        waiting = [t.number for t in running if t.number not in left]
        if not waiting:
            return
        if not told:
            logger.info(
                "Waiting for trial %s: another worker scores it, or was killed a moment ago.",
                ", ".join(map(str, waiting)),
            )
            told = True
        time.sleep(1)


def sign(trial: optuna.Trial) -> None:
    """Say in a trial which process scores it."""
    trial.set_user_attr(_WORKER, f"{socket.gethostname()}:{os.getpid()}")


def _left(trial: FrozenTrial) -> bool:
    """Whether a running trial was left, as far as its heartbeat need not tell."""
    attributes = trial.user_attrs
    if attributes.get("parent") is not None or attributes.get("fidelity") == ADAPTED:
        return True
    if _WORKER in attributes:
        return _is_gone(str(attributes[_WORKER]))
    assert trial.datetime_start is not None, "it is running"
    return (datetime.now() - trial.datetime_start).total_seconds() > _PROPOSING


def _is_gone(worker: str) -> bool:
    """Whether a process of this machine has ended, or is this one, which scores nothing now."""
    host, _, number = worker.rpartition(":")
    if host != socket.gethostname() or not number.isdecimal():
        return False
    if int(number) == os.getpid():
        return True
    if os.name != "posix":  # where the signal 0 is no question
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # somebody else's, and alive
    return False
