"""Reading files that anyone may have written: of bounded size, of the expected form, or refused."""

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from searchspaces.support.errors import QuerynasError, reason
from searchspaces.support.problems import problem_of
from searchspaces.support.section import NEWER

Content = TypeVar("Content")

_MOST = 16 << 20  # bytes of a JSON file


def read_bytes(path: Path, *, at_most: int, error: type[QuerynasError], remedy: str) -> bytes:
    """Return what a regular file holds.

    Args:
        path: The file.
        at_most: Bytes that are read; a larger file is refused before.
        error: What to raise.
        remedy: What to do about a file that cannot be read, the end of a sentence.

    Raises:
        QuerynasError: The given kind of it: there is no such file, it is a folder or a device, it
            is too large, or it may not be read.
    """
    check_file(path, at_most=at_most, error=error, remedy=remedy)
    try:
        with path.open("rb") as file:
            return file.read(at_most)
    except OSError as problem:
        raise error(f"'{path}' cannot be read ({reason(problem)}); {remedy}.") from problem


def check_file(path: Path, *, at_most: int, error: type[QuerynasError], remedy: str) -> None:
    """Refuse what `read_bytes` would not read; for files that a library reads.

    Raises:
        QuerynasError: The given kind of it, as `read_bytes`.
    """
    try:
        problem = _refusal(path.stat(), at_most)
    except FileNotFoundError as missing:
        raise error(f"There is no file '{path}'; {remedy}.") from missing
    except (OSError, ValueError) as odd:  # the latter of a NUL in a path
        raise error(f"'{path}' cannot be read ({reason(odd)}); {remedy}.") from odd
    if problem is not None:
        raise error(f"'{path}' {problem}; {remedy}.")


def read_text(path: Path, *, error: type[QuerynasError], remedy: str, at_most: int = _MOST) -> str:
    """Return what a text file in UTF-8 holds.

    Raises:
        QuerynasError: The given kind of it: as `read_bytes`, or the file is in another encoding.
    """
    content = read_bytes(path, at_most=at_most, error=error, remedy=remedy)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(
            f"'{path}' is no UTF-8 text (byte {problem.start:,}); save it as UTF-8."
        ) from problem


def _refusal(found: os.stat_result, at_most: int) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if found.st_size > at_most:
        return f"has {found.st_size:,} bytes, more than the {at_most:,} that are read"
    return None


def read_json(
    path: Path,
    kind: type[Content],
    *,
    error: type[QuerynasError],
    remedy: str,
    at_most: int = _MOST,
) -> Content:
    """Return what a JSON file holds as a pydantic model, or as any type that pydantic knows.

    Raises:
        QuerynasError: The given kind of it: as `read_bytes`, or the file is no JSON (in UTF-8, no
            more than 200 levels deep), or a field is unknown, missing, there twice or of the wrong
            kind.
    """
    content = read_bytes(path, at_most=at_most, error=error, remedy=remedy)
    try:
        found = TypeAdapter(kind).validate_json(content)
        check_json(content)
    except ValidationError as problem:
        if problem.errors()[0]["type"] == NEWER:
            raise error(f"'{path}' is {problem.errors()[0]['msg']}.") from problem
        raise error(f"'{path}' cannot be read: {problem_of(problem, kind)}; {remedy}.") from problem
    except ValueError as problem:
        raise error(f"'{path}' cannot be read: {reason(problem)}; {remedy}.") from problem
    return found


def check_json(content: str | bytes) -> None:
    """Refuse what readers of JSON take in different ways: a field twice, NaN and infinity.

    Raises:
        ValueError: It holds one of them.
    """
    json.loads(content, object_pairs_hook=_once, parse_constant=_no_number)


def _once(fields: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(fields)
    if len(found) < len(fields):
        twice = Counter(name for name, _ in fields).most_common(1)[0][0]
        raise ValueError(f"the field '{twice}' is there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def validated(
    kind: type[Content], values: object, what: str, *, error: type[QuerynasError], remedy: str = ""
) -> Content:
    """Return plain values, such as a command's options, as a pydantic model.

    Args:
        kind: The model, or any type that pydantic knows.
        values: What is given.
        what: Whose values they are, as a sentence begins: "The set 'facades'".
        error: What to raise.
        remedy: What to do about wrong ones, the end of a sentence; left out where they are typed.

    Raises:
        QuerynasError: The given kind of it: a field is unknown, missing or of the wrong kind.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as problem:
        end = f"; {remedy}" if remedy else ""
        raise error(f"{what}: {problem_of(problem, kind)}{end}.") from problem
