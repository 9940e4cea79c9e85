"""Fixtures shared by all tests."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.cli import main

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, or a skip that says how to have it."""
    root = Path(os.environ.get("QUERYNAS_DATA", "../shared/data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root}: set QUERYNAS_DATA to the folder that holds them")
    return root.resolve()


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' image cache out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUERYNAS_CACHE", str(tmp_path_factory.mktemp("cache")))
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
