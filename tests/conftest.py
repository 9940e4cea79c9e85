"""What all tests share: the command line, real images, and folders that are made once."""

import contextlib
import gc
import multiprocessing
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

from nas.cli import main

# Exports and searches make many objects and little garbage; looking for it was a tenth of the time.
gc.set_threshold(20_000, 20, 50)
os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is loaded; subprocesses inherit it

Cli = Callable[..., tuple[int, str, str]]
Begun = Callable[[str], BaseProcess]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]

# Property tests are not timed: machines differ, and other work runs beside them.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, or a skip that says how to have it."""
    root = Path(os.environ.get("QUERYNAS_DATA", "../shared/data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root}: set QUERYNAS_DATA to the folder that holds them")
    return root.resolve()


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test session share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def made_once(common: Path) -> MadeOnce:
    """Have a folder of ``common`` made by whichever process needs it first; do not change it."""

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        path = common / name
        made = common / f"{name}.made"
        with FileLock(common / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(path, ignore_errors=True)
                make(path)
                made.touch()
        return path

    return folder


@pytest.fixture(scope="session", autouse=True)
def private_cache(common: Path) -> Iterator[None]:
    """Keep the tests' image cache out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUERYNAS_CACHE", str(common / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def hasty_databases() -> Iterator[None]:
    """Let SQLite leave writing to the operating system: processes are killed here, no power fails.

    Otherwise a study waits for the disk for longer than it computes.
    """
    from sqlalchemy import Engine, event  # slow to import

    def hasten(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):  # what is broken is left to the test
                connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hasten)
    yield
    event.remove(Engine, "connect", hasten)


@pytest.fixture(scope="session", autouse=True)
def hasty_exports() -> Iterator[None]:
    """Let PyTorch's ONNX exporter make its table of operators once, not for every network."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # slow to import

    table = staticmethod(cache(ONNXRegistry.from_torchlib))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", table)
        yield


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["querynas", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as exit:
            code = int(exit.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prunings write no ONNX file, which takes most of their time, but safetensors twice."""
    from nas.recipes import prune_run  # slow to import

    export = prune_run.export

    def safetensors(run: Any, record: Any, format: str, path: Path) -> Any:
        return export(run, record, "safetensors", path.with_suffix(".safetensors"))

    monkeypatch.setattr(prune_run, "export", safetensors)


@pytest.fixture
def begun() -> Begun:
    """Begin a program in a process of its own, to be killed; it finds the libraries loaded."""
    import torch  # slow to import

    # a GPU that was used here cannot be used behind a fork, nor can threads of OpenMP
    method = "spawn" if torch.cuda.is_available() else "fork"
    alone = "import threadpoolctl; threadpoolctl.threadpool_limits(1)\n"

    def begin(program: str) -> BaseProcess:
        context = multiprocessing.get_context(method)
        process = context.Process(target=exec, args=(alone + program, {}))
        process.start()
        return process

    return begin
