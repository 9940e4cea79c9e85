"""Command lines of anybody: every option of every command with values that it should not take."""

import contextlib
import io
import os
import random
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest import mock

from mutations import Case, Cases, assert_clean

from nas.cli import main
from searchspaces.support.errors import QuerynasError

FORMATS = Path(__file__).parent.parent / "formats"
sys.path.append(str(FORMATS))  # timm knows the small network of these folders by this module
import tiny_backbone  # noqa: E402, F401

DATA = "facades:classes=12,images=6,size=24,seed=0"
PATHS = (
    *("", ".", "/", "nowhere", "nowhere/a", "study.yaml", "study.yaml/a", "gallery", "run"),
    *("/proc/self/none", "/dev/null", "/dev/zero", "/dev/null/a", "pipe", "loop", "empty"),
    *("n" * 300, "n/" * 3000, "\udcff", "a\nb", "$HOME", "~", "a?b=c", "%", "-", "ü", " "),
)
NUMBERS = (
    *("-1", "0", "1", "99999", "1e23", "9" * 25, "9" * 400, "nan", "inf", "-inf", "", "x", "0x10"),
    *("0.5", "2147483648", "9223372036854775808", "1" * 5000, "٣"),
)
TEXTS = (
    *("", " ", "timm:", "timm:nothing", "timm:../..", "module:", ":", "os:system", "a:b,c", "{}"),
    *("[]", "{a: 1, a: 2}", "{ssp: .nan}", "{ssp: -1}", "&a [*a]", "!!python/name:os.system", ","),
    *("facades:classes=0", "facades:size=99999", "facades:a=b", "9" * 400, "x" * 5000),
    *(
        "50M",
        "-5M",
        "0x",
        "1e999G",
        "9" * 400 + "G",
        "0.5x",
        "1e-400x",
        "5ms",
        "nanms",
        "infparams",
    ),
    *("%s", "\x1b[31m", "3x99999x99999", "3x0x0", "3x" + "9" * 30 + "x" + "9" * 30, "1,2,x"),
    *("sqlite://", "foo://", "mysql://a", "sqlite:////dev/null/a.db", "postgresql://", "sqlite:a"),
)
ANY = (*PATHS, *NUMBERS, *TEXTS)

# each command as it would work, but for one value that is wrong
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("search", "study.yaml", "--out", "OUT", "--trials", "1", "--workers", "1", "--timeout", "0"),
    ("search", "study.yaml", "--out", "OUT", "--storage", "sqlite:///a.db", "--timeout", "0"),
    ("pareto", "run", "--max-flops", "50M", "--min-map", "0.1", "--csv", "OUT"),
    ("export", "run", "--trial", "0", "--out", "OUT.safetensors"),
    ("export", "run", "--best-under", "50M", "--out", "OUT.onnx", "--format", "safetensors"),
    ("report", "run"),
    ("repeat", "run", "--trials", "77", "--seeds", "2"),
    ("evaluate", "query.onnx", "--gallery", "gallery", "--data", DATA),
    ("compare", "query.onnx", "query.onnx", "--gallery", "gallery", "--data", DATA),
    ("profile", "timm:tiny_net", "--input", "3x24x24"),
    ("nest", "extract", "nested", "--capacity", "50%", "--out", "OUT.onnx"),
    (
        *("nest", "train", "tiny_net", "--gallery", "gallery", "--data", "nowhere", "--out", "OUT"),
        *("--capacities", "50%,100%", "--per-step", "2", "--loss", "ssp", "--pairwise", "0.1"),
        *("--resolution", "24", "--epochs", "1", "--batch", "16", "--lr", "0.01", "--val", "0.2"),
        *("--test", "0.2", "--seed", "0"),
    ),
    (
        *("prune", "tiny_net", "--gallery", "gallery", "--data", "nowhere", "--target", "0.5x"),
        *("--out", "OUT", "--rounds", "1", "--epochs", "1", "--align-epochs", "0"),
        *("--finish-epochs", "0", "--loss", "ssp", "--resolution", "24", "--checkpoint", "none"),
        *("--batch", "16", "--round-to", "8", "--val", "0.2", "--test", "0.2", "--seed", "0"),
    ),
    (
        *("latency", "calibrate", "--out", "OUT.json", "--space", "nothing", "--options", "{}"),
        *("--dimension", "8", "--seed", "0"),
    ),
    ("latency", "calibrate", "--out", "OUT.json", "--study", "begun.yaml", "--space", "mbconv"),
    ("latency", "check", "--table", "nowhere.json", "--networks", "3", "--seed", "0"),
    ("gallery", "info", "gallery"),
    (
        *("gallery", "build", "--data", "nowhere", "--model", "model.safetensors", "--out", "OUT"),
        *("--enhance", "flip", "--views", "1", "--val", "0.2", "--test", "0.2", "--seed", "0"),
    ),
    (
        *("gallery", "train", "--data", "nowhere", "--out", "OUT.safetensors", "--epochs", "1"),
        *("--backbone", "timm:tiny_net", "--resolution", "24", "--dimension", "8", "--val", "0.2"),
        *("--test", "0.2", "--seed", "0"),
    ),
    ("gallery", "import", "--vectors", "nowhere.npy", "--out", "OUT", "--ids", "ids.txt"),
    ("gallery", "reduce", "gallery", "--dimension", "4", "--out", "OUT"),
    ("gallery", "compress", "gallery", "--bytes", "2", "--bits", "4", "--out", "OUT"),
    (
        *("gallery", "fuse", "gallery", "reduced", "--data", "nowhere", "--out", "OUT"),
        *("--dimension", "4", "--epochs", "1", "--resolution", "24", "--val", "0.2", "--seed", "0"),
    ),
    (
        *("gallery", "hash", "gallery", "--data", "nowhere", "--bits", "8", "--out", "OUT"),
        *("--epochs", "1", "--resolution", "24", "--seed", "0"),
    ),
)


class Stopped(Exception):
    """A command got as far as its real work, which is not what is tried here."""


def _stop(*_: object, **__: object) -> None:
    raise Stopped


WORK = (
    "nas.study.trials.bring",  # behind all checks, before the first training
    "nas.recipes.nest.train_nested",
    "nas.statistics.repeats._perform",
    "nas.candidates.latency_table._time_blocks",
)


def of_values(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Each value in turn replaced by one that is not meant there."""
    before = Path.cwd()
    shutil.copytree(FORMATS / "unversioned", folder / "old", dirs_exist_ok=True)
    os.chdir(folder / "old")
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    Path("empty").touch()
    places = [(c, i) for c in COMMANDS for i in range(1, len(c)) if not c[i].startswith("--")]
    with contextlib.ExitStack() as stack:
        stack.callback(os.chdir, before)
        for name in WORK:
            module, _, function = name.rpartition(".")
            stack.enter_context(mock.patch.object(import_module(module), function, _stop))
        for number in range(count):
            draw = random.Random(f"{seed} {number}")
            command, place = places[number % len(places)]
            words = [word.replace("OUT", f"out/{number}") for word in command]
            words[place] = draw.choice(ANY)
            what = " ".join(word if len(word) < 40 else f"{word[:30]}…" for word in words)
            yield Case(what, _named_in(words), partial(_run, words))


class Said(QuerynasError):
    """What a command said, as it said it."""

    def __init__(self, sentence: str) -> None:
        ValueError.__init__(self, sentence)


def _named_in(words: list[str]) -> tuple[str, ...]:
    """Options and values of a command line, of which a refusal has to name one."""
    names: list[str] = []
    for word in words:
        names += (
            [form.format(word) for form in ("'{}'", " {}", "/{}", "{} ")] if len(word) < 3 else []
        )
        names += [each[:20] for each in _spellings(word) if len(each) > 2]
    return (*names, "option: -")  # of a value with a hyphen, letter by letter


def _spellings(word: str) -> tuple[str, ...]:
    """A word as sentences write it: as it is, as a path, in quotes, in one line, its beginning."""
    return word, str(Path(word)), repr(word)[1:-1], " ".join(word.split()), word.partition(":")[0]


def _boxed(text: str, words: list[str]) -> str:
    """The sentence in typer's box, which repeats values at any length; they are cut here."""
    said = "".join(line.strip("│ ") + " " for line in text.splitlines() if line.startswith("│"))
    for word in words:
        if len(word) > 100:
            said = said.replace(" ", "").replace(word, word[:20])
    return said


def _run(words: list[str]) -> None:
    """Run a command in this process; raise its sentence, or pass where it gets to its work."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["querynas", *words]),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(Stopped),
    ):
        code: object = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code
        assert code in (0, None, 2), f"exit code {code}"
    lines = [line for line in said.getvalue().splitlines() if line.startswith("querynas: ")]
    if code == 2:
        raise Said(
            lines[-1].removeprefix("querynas: ") if lines else _boxed(said.getvalue(), words)
        )


KINDS: dict[str, Cases] = {"command lines": of_values}


def test_a_command_with_a_wrong_value_exits_with_a_sentence(tmp_path: Path) -> None:
    assert_clean(of_values, tmp_path, count=140)  # every value at least once
