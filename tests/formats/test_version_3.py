"""What querynas wrote before runs said their loss and cut by it goes on as it was begun."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from nas.errors import StudyError
from nas.study.run import Run
from nas.study.run_file import RunFile
from searchspaces.support.reading import read_json

Done = Callable[[str], str]

THEN = {"csd": {"gallery_temperature": 0.07, "query_temperature": 0.07}}


class _OldRunFile(RunFile):
    NEWEST: ClassVar = 2


def written(run: str) -> RunFile:
    return read_json(Path(run, "run.json"), RunFile, error=StudyError, remedy="write it again")


def test_a_run_goes_on_by_magnitude_and_at_the_temperature_of_then(done: Done) -> None:
    assert (written("run").version, written("run").identity["loss"]) == (2, None)
    before = Run.open("run").records()
    done("search study.yaml --out run")
    run = Run.open("run")
    assert all(record in run.records() for record in before)
    assert len([r for r in run.records() if r.fidelity == "re-aligned"]) == 4
    assert {r.architecture.params["criterion"] for r in run.records()} == {"magnitude"}
    assert run.config.alignment_loss == THEN


def test_a_new_run_says_its_loss_and_older_readers_refuse_it(done: Done) -> None:
    done("search study.yaml --out again --trials 1")
    assert "spread" in json.dumps(written("again").identity["loss"])
    (record,) = (r for r in Run.open("again").records() if r.fidelity == "re-aligned")
    assert record.architecture.params["criterion"] == "taylor"
    with pytest.raises(StudyError, match=r"up to 2: update querynas\.$"):
        read_json(Path("again/run.json"), _OldRunFile, error=StudyError, remedy="write it again")
