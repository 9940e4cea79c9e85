"""Files that anyone may have written: read as what they should be, or refused in one sentence."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from searchspaces.support.errors import QuerynasError
from searchspaces.support.reading import read_bytes, read_json
from searchspaces.support.section import Versioned


class Notes(Versioned):
    """A small file of ours."""

    count: int
    more: dict[str, Any] = Field(default_factory=dict)


def opened(path: Path) -> Notes:
    return read_json(path, Notes, error=QuerynasError, remedy="write it again", at_most=1 << 20)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"[]", "the whole file is .* an object"),
        (b'{"count": 1, "text": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"count": 1, "more": {"a": ' + b"9" * 5000 + b"}}", "out of range"),
        (b'{"count": NaN}', "'count' is nan"),
        (b'{"coumt": 1}', "unknown field 'coumt' .did you mean 'count'"),
        (b'{"count": 1, "version": -1}', "'version' is -1"),
        (b" " * ((1 << 20) + 1), "1,048,577 bytes, more than the 1,048,576"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    with pytest.raises(QuerynasError, match=rf"notes\.json.*{sentence}.*write it again"):
        opened(path)


def test_a_version_that_is_missing_is_old_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text('{"count": 1}')
    assert opened(path).version == 0
    path.write_text('{"version": 1, "count": 1}')
    assert opened(path).version == 1
    path.write_text('{"version": 2, "count": {"of": "tomorrow"}, "unknown": 1}')
    with pytest.raises(QuerynasError, match=r"version 2, and .* up to 1: update querynas\.$"):
        opened(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/dev/zero", tmp_path / "endless")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "endless"):
        with pytest.raises(QuerynasError, match="is no regular file"):
            opened(path)
    with pytest.raises(QuerynasError, match=r"There is no file '.*none'"):
        opened(tmp_path / "none")
    for name in ("n" * 300, "nul\0"):
        with pytest.raises(QuerynasError, match="cannot be read"):
            read_bytes(tmp_path / name, at_most=1, error=QuerynasError, remedy="look again")


def test_a_sentence_is_one_line_of_at_most_300_printable_characters() -> None:
    sentence = str(QuerynasError(f"The file '{'a' * 1000}\n\x1b[31m\udcff' is odd; delete it."))
    assert len(sentence) == 300
    assert sentence.isprintable()
    assert sentence.startswith("The file 'aaa")
    assert sentence.endswith(r"\x1b[31m\udcff' is odd; delete it.")
