"""Old files to open and go on from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_backbone  # noqa: F401  timm knows its network from here on

Cli = Callable[..., tuple[int, str, str]]
Done = Callable[[str], str]


@pytest.fixture(autouse=True)
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the old files of the test's module; paths inside are relative to it."""
    name = request.path.stem.removeprefix("test_")
    folder = tmp_path / name
    shutil.copytree(Path(__file__).parent / name, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def done(cli: Cli) -> Done:
    """Run a command line that must succeed; its standard output."""

    def run(line: str) -> str:
        code, printed, complaint = cli(*line.split())
        assert code == 0, complaint
        return printed

    return run
