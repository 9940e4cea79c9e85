"""Seeded damage to valid files, and the judge of what a reader makes of it.

A kind of file is a function ``cases(folder, seed, count)`` that yields `Case`s one by one, each
just after it has written its file; a test module names its kinds in a dict ``KINDS``, so that the
tests try some of each, and benchmarks/hostile.py thousands.
"""

import json
import pickle
import random
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searchspaces.support.errors import LONGEST, QuerynasError

SECONDS = 20  # after which a case counts as hanging
_MOST_GROWTH = 1 << 20  # KiB of memory that the cases of one kind may take more than before

# What people and programs put where something else belongs.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 256, 99999, 2**31, 2**63, 10**23, -(10**400)),
    *(0.5, -0.0, 1e-320, 1e23, 1e308, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        " ",
        "a",
        "0",
        "1",
        "null",
        "../../etc/passwd",
        "/dev/zero",
        "\0",
        "a\nb",
        "\u202e",
        "[/b]",
    ),
    *("\ud800", "x" * 5000, "{}", "__import__('os').system('true')", "timm:resnet18", "cosine"),
    *([], [None], [1], ["a"], [0.5, 0.5], [[[[]]]], {}, {"a": 1}, {"": None}, {"size": 99999}),
)
OLD = {"size": "resolution", "arch": "backbone"}  # names of fields, and those that they have now
_BYTES = (b"\0", b"\xff", b"\n", b'"', b"{", b"[", b"\x80\x04", b"\xef\xbb\xbf", b"9" * 30, b"%s")


@dataclass(frozen=True)
class Case:
    """One hostile input, written already.

    Args:
        what: What was done to it.
        names: Text that the sentence of a refusal has to hold, as a rule the file's name; or
            several, of which it has to hold one.
        open: Reads it all, does with it what commands do, and asserts of what came out that it is
            what the file says: see `says`.
    """

    what: str
    names: str | tuple[str, ...]
    open: Callable[[], object]


Cases = Callable[[Path, int, int], Iterator[Case]]


@dataclass
class Tally:
    """What became of the cases of one kind."""

    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unclean: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)


class Hanging(BaseException):
    """A case took too long; no reader's `except Exception` may swallow that."""


def tally(cases: Cases, folder: Path, *, seed: int = 0, count: int = 200) -> Tally:
    """Open every case.

    A clean one is refused in one sentence that names the file, or opens as what the file says.
    """
    done = Tally()
    with _watched(folder, done.executed), _bell(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of damage before they refuse it
        for case in cases(folder, seed, count):
            done.tried += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                case.open()
                outcome = "opened"
            except QuerynasError as error:
                outcome = "refused"
                found = _fault(str(error), case.names)
                if found:
                    done.unclean.append(f"{case.what}: {found}: {error}")
            except AssertionError as error:
                outcome = "wrongly opened"
                done.unclean.append(f"{case.what}: opened as something else: {str(error)[:200]}")
            except (Exception, Hanging) as error:
                outcome = "failed"
                done.unclean.append(f"{case.what}: {type(error).__name__}: {str(error)[:200]}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            done.outcomes[outcome] += 1
    return done


def assert_clean(cases: Cases, folder: Path, *, seed: int = 0, count: int = 200) -> Tally:
    """Assert that every case is clean, runs none of its own code and stays below 1 GiB."""
    before = _peak()
    done = tally(cases, folder, seed=seed, count=count)
    assert _peak() - before < _MOST_GROWTH
    assert done.tried
    assert not done.executed, done.executed[:5]
    assert not done.unclean, f"{len(done.unclean)} of {done.tried}:\n" + "\n".join(done.unclean[:9])
    return done


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def says(written: Any, read: Any) -> bool:
    """Whether a reader took plain values as they are written: no field left out, none changed.

    The reader may know more fields, those that have defaults. A number in quotes is that number,
    as it is in YAML and in options of commands; 1 and 0 are truth values, these are no numbers.
    """
    if isinstance(written, dict) and isinstance(read, dict):
        named = {name if name in read else OLD.get(name): name for name in written}
        return all(new in read and says(written[name], read[new]) for new, name in named.items())
    if isinstance(written, list) and isinstance(read, list | tuple):
        return len(written) == len(read) and all(map(says, written, read))
    if isinstance(read, bool):
        return str(written).lower() in (("true", "1") if read else ("false", "0"))
    if isinstance(written, bool):
        return False
    if isinstance(written, str) and isinstance(read, int | float):
        return float(written) == read
    return bool(written == read)


def _fault(sentence: str, names: str | tuple[str, ...]) -> str | None:
    if len(sentence) > LONGEST:
        return f"{len(sentence)} characters"
    if not sentence.isprintable():
        return "unprintable"
    if not any(name in sentence for name in ((names,) if isinstance(names, str) else names)):
        return f"does not name {names!r}"
    return None


def put(path: Path, content: bytes) -> None:
    """Write a file anew: to empty an old one first would wait for the disk each time."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def mutated_bytes(content: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield a valid file's bytes changed, cut, doubled, moved and replaced, with what was done."""
    yield "empty", b""
    yield "not UTF-8", b"\xff\xfe" + content
    yield "a pickle", hostile_pickle(Path("nowhere"))
    yield "text", b"hello\n"
    yield "zeros", bytes(len(content))
    yield "doubled", content + content
    for number in range(count - 6):
        draw = random.Random(f"{seed} {number}")
        yield f"bytes {seed}/{number}", _changed(content, draw)


def _changed(content: bytes, draw: random.Random) -> bytes:
    """Headers are hit as often as all the rest: most of what a reader believes stands there."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        end = len(changed)
        if draw.random() < 0.5:
            end = min(end, 256)
        place = draw.randrange(end) if end else 0
        match draw.randrange(7):
            case 0:
                changed[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                changed[place : place + 1] = bytes([changed[place] ^ 1 << draw.randrange(8)])
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + draw.randrange(1, 64)]
            case 4:
                changed[place:place] = draw.choice(_BYTES)
            case 5:
                size = draw.choice((4, 8))
                value = draw.choice((0, 1, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1))
                changed[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
            case 6:
                other = draw.randrange(len(changed) or 1)
                changed[place : place + 32] = changed[other : other + 32]
        if not changed:
            break
    return bytes(changed)


def mutated_json(content: Any, seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Yield JSON text with values replaced, removed, added and renamed, every field in turn."""
    for text in ("", "null", "[]", "{}", "7", '"text"', "{oops", "[" * 100_000, '{"a":' * 50_000):
        yield f"only {text[:9]!r}", text
    whole = json.dumps(content)
    yield "a field twice", whole.replace("{", '{"a": 1, "a": 2, ', 1)
    yield "a known field twice", _with_a_field_twice(whole)
    yield "a long number", whole.replace("{", '{"a": ' + "9" * 5000 + ", ", 1)
    yield "surrogate", whole.replace('": "', '": "\\ud800', 1)
    draw = random.Random(seed)
    places = list(_places(content))
    for number in range(count - 13):
        place = places[number % len(places)]
        copy = json.loads(whole)
        done = _change(copy, place, draw)
        yield f"{'.'.join(map(str, place))} {done}", json.dumps(copy)


def _with_a_field_twice(text: str) -> str:
    """The first field of the first object once more, with nothing in it."""
    name = text[text.index("{") :].split('"')[1]
    return text.replace("{", f'{{"{name}": null, ', 1)


def _places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else ()
    if isinstance(content, list):
        inner = list(enumerate(content))[:3]
    for key, value in inner:
        yield (*before, key)
        yield from _places(value, (*before, key))


def _change(content: Any, place: tuple[Any, ...], draw: random.Random) -> str:
    *before, key = place
    holder = content
    for part in before:
        holder = holder[part]
    match draw.randrange(8):
        case 0:
            del holder[key]
            return "removed"
        case 1:
            value = holder[key]
            if isinstance(holder, dict):
                holder[f"{key}s"] = holder.pop(key)
                return "renamed"
            holder.append(value)
            return "repeated"
        case 2:
            holder[key] = [holder[key]]
            return "in a list"
        case 3:
            holder[key] = str(holder[key])
            return "as text"
        case _:
            value = draw.choice(VALUES)
            holder[key] = value
            return f"= {str(value)[:30]!r}"


def hostile_pickle(marker: Path) -> bytes:
    """A pickle that makes the file ``marker`` when it is loaded without care."""
    return pickle.dumps(_Toucher(marker))


@dataclass(frozen=True)
class _Toucher:
    marker: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


_WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "exec")
_watching: tuple[str, list[str]] | None = None
_hooked = False


@contextmanager
def _watched(folder: Path, executed: list[str]) -> Iterator[None]:
    """Note programs that are started and code of files in the folder that is executed."""
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # for good: there is no way to take one out
        _hooked = True
    _watching = (str(folder), executed)
    try:
        yield
    finally:
        _watching = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None or event not in _WATCHED:
        return
    folder, executed = _watching
    if event == "exec":
        file = getattr(arguments[0], "co_filename", "")
        if file.startswith(folder):
            executed.append(f"code of {file}")
    elif event != "subprocess.Popen" or arguments[0] != sys.executable:  # a reader of our own
        executed.append(f"{event} {str(arguments[0])[:200]}")


@contextmanager
def _bell() -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise Hanging(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
