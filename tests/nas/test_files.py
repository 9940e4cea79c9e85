"""Files are there whole, or not at all."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from searchspaces.support.files import write_atomically


def test_a_file_appears_whole_and_readable(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "new" / "a.txt", lambda file: file.write_text("whole"))
    assert path.read_text() == "whole"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def half(file: Path) -> None:
        file.write_text("ha")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_atomically(path, half)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_on_a_full_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: Path) -> None:
        raise RuntimeError("unexpected pos 241536 vs 241432")  # how torch.save puts it

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=512))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.txt", write)
