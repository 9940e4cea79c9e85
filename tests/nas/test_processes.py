"""How many processes a search begins by itself."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import joblib
import psutil
import pytest
import torch
from threadpoolctl import threadpool_info

from nas.study import processes
from nas.study.run import Run

GIB = 1 << 30
IDLE = {"cores": 8, "busy": 0.0, "memory": 64, "threads": 8, "allowed": 8, "device": "cpu"}


@pytest.mark.parametrize(
    ("machine", "count"),
    [
        ({}, 8),
        ({"busy": 20.0}, 6),
        ({"busy": 100.0}, 1),
        ({"memory": 4}, 3),
        ({"memory": 0}, 1),
        ({"threads": 1}, 1),
        ({"allowed": 2}, 2),
        ({"cores": 16, "busy": 50.0}, 8),
        ({"device": "cuda"}, 1),
    ],
    ids=str,
)
def test_a_search_takes_the_cores_that_idle(
    machine: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {**IDLE, **machine}
    memory = SimpleNamespace(available=found["memory"] * GIB)
    monkeypatch.setattr(psutil, "cpu_count", lambda: found["cores"])
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: found["busy"])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(torch, "get_num_threads", lambda: found["threads"])
    monkeypatch.setattr(joblib, "cpu_count", lambda: found["allowed"])
    monkeypatch.setattr(processes, "pick_device", lambda: torch.device(found["device"]))
    assert processes.room() == count


def test_there_is_room_for_one_process_here() -> None:
    assert 1 <= processes.room() <= torch.get_num_threads()


@pytest.mark.parametrize(
    ("given", "told"), [([], 3), (["--workers", "2"], 2), (["--workers", "1"], 0)]
)
def test_the_command_says_in_how_many_processes_it_computes(
    given: list[str],
    told: int,
    cli: Callable[..., tuple[int, str, str]],
    tiny_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(processes, "room", lambda: 3)
    study = tiny_run.path / "study.yaml"
    with caplog.at_level("INFO", logger="querynas"):
        code, _, err = cli("search", study, "--out", tiny_run.path, *given)
    assert code == 0, err
    assert (f", in {told} processes;" if told else " threads); ") in caplog.text


def test_a_limit_holds_for_linear_algebra_too_and_ends() -> None:
    def threads() -> set[int]:
        found = {library["num_threads"] for library in threadpool_info()}
        return found | {torch.get_num_threads()}

    with processes.limited(2):
        assert threads() == {2}
        with processes.limited(1):
            assert threads() == {1}
        assert threads() == {2}
