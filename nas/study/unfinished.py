"""Trials that killed processes left unfinished."""

import logging
import time
from datetime import datetime

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from nas.study.front import ADAPTED

logger = logging.getLogger("querynas")

_PROPOSING = 60  # seconds after which a trial without any parameter is not being proposed any more


def close(study: optuna.Study, *, alone: bool = False) -> None:
    """Mark as failed what killed processes left, and wait for what others still score.

    Optuna's heartbeat tells them apart, where there is one: not in trials that were killed while
    they were proposed, or added by whoever has the run's turn, which the caller must have.

    Args:
        study: The study.
        alone: Whether nobody else can be at work on it.
    """
    told = False
    while True:
        fail_stale_trials(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            if alone or _left(trial):
                study.tell(trial.number, state=TrialState.FAIL)
        waiting = [t.number for t in running if not (alone or _left(t))]
        if not waiting:
            return
        if not told:
            logger.info(
                "Waiting for trial %s: another worker scores it, or was killed a moment ago.",
                ", ".join(map(str, waiting)),
            )
            told = True
        time.sleep(1)


def _left(trial: FrozenTrial) -> bool:
    """Whether a running trial that has no heartbeat was left."""
    if trial.params or trial.user_attrs:
        attributes = trial.user_attrs
        return attributes.get("parent") is not None or attributes.get("fidelity") == ADAPTED
    assert trial.datetime_start is not None, "it is running"
    return (datetime.now() - trial.datetime_start).total_seconds() > _PROPOSING
