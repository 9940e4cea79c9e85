"""Study files of anybody: their bytes, their YAML, every field and every option in turn."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutations import Case, Cases, assert_clean, mutated_bytes, mutated_json, put, says

from compat.losses import create_loss
from nas.candidates.routes import create_route
from nas.config.study import load_config, parse_config
from nas.study.screening import check_screen
from nas.study.trials import check_reach

FORMATS = Path(__file__).parent.parent / "formats"
sys.path.append(str(FORMATS))  # timm knows the small network of this study by this module
import tiny_backbone  # noqa: E402, F401

SECTIONS = (
    "`spaces.",
    "loss",
    "The screen",
    "no screen",
)  # that are looked at after the file was read
STUDY = (FORMATS / "unversioned" / "study.yaml").read_bytes()
FULL: dict[str, Any] = {
    **yaml.safe_load(STUDY),
    "loss": {"ssp": {"weight": 1.0}, "regression": 0.5},
    "objectives": ["macs", "cross_test"],
    "sampler": "nsga2",
    "trials": 8,
    "start": 2,
    "warm_start": "runs/other",
    "budget": {"min_macs": "1k", "max_macs": "50M", "max_latency": "5ms", "max_int8_bytes": 10**6},
    "screen": {"by": "surrogate", "after": 30, "doubt": 0.1},
    "finish": [{"models": 1, "training": {"epochs": 2, "lr": 0.001}}],
    "split": {"val": 0.2, "test": 0.3, "seed": 0},
    "imports": [],
    "seed": 0,
}
SPACES: dict[str, dict[str, Any]] = {
    "pruned": {
        **{"backbone": "tiny_net", "resolutions": [24], "max_ratio": 0.5, "step": 0.25},
        **{"criteria": ["magnitude"], "schedules": ["one_shot"], "rounds": 2},
        **{"pooling": "avg", "pretrained": False, "checkpoint": None},
    },
    "mbconv": FULL["spaces"]["slices"]["options"],
    "resnet": {"resolutions": [32], "stem_widths": [8]},
    "shufflenet": {"resolutions": [32]},
    "vit": {"resolutions": [32], "patches": [8], "widths": [16], "heads": [2], "depths": [3]},
    "timm": {"backbones": ["resnet10t"], "resolutions": [32], "poolings": ["avg"]},
    "union": {"spaces": {"a": {"space": "mbconv"}, "b": {"space": "resnet"}}},
}


def ready(path: Path) -> None:
    """What a search does before it looks at any data; written, it is the same study."""
    config = load_config(path)
    dumped = config.model_dump(mode="json")
    assert parse_config(yaml.safe_dump(dumped), path) == config
    written = yaml.safe_load(path.read_bytes())
    assert taken(written, dumped), written
    create_loss(config.loss)
    check_screen(config)
    for name, each in config.spaces.items():
        check_reach(create_route(name, each, 8), config.budget)


def taken(written: Any, read: Any) -> bool:
    """Whether no field is left out, no list is cut and no truth value is a number.

    Values may be written in short: a budget as "50M", a loss by its name.
    """
    if isinstance(written, dict) and isinstance(read, dict):
        return all(name in read and taken(value, read[name]) for name, value in written.items())
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(taken, written, read))
    scalars = (bool, int, float)
    if isinstance(written, scalars) and isinstance(read, scalars):
        return says(written, read)
    return True


def of_bytes(folder: Path, seed: int, count: int) -> Iterator[Case]:
    for what, content in mutated_bytes(STUDY, seed, count):
        yield _case(folder, what, content)


def of_fields(folder: Path, seed: int, count: int) -> Iterator[Case]:
    for what, text in mutated_json(FULL, seed, count):
        yield _case(folder, what, text.encode("utf-8", "surrogatepass"))


def of_options(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Options of each space, sliced or alone."""
    share = -(-count // len(SPACES))
    for number, (space, options) in enumerate(SPACES.items()):
        section = {"route": "standalone", "space": space, "options": options}
        for what, text in mutated_json(section, seed + number, share):
            content = f'{{"data": "a", "gallery": "b", "spaces": {{"s": {text}}}}}'
            yield _case(folder, f"{space}: {what}", content.encode("utf-8", "surrogatepass"))


def of_yaml(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Text that PyYAML reads and a study file should not hold, put in between its lines."""
    lines = STUDY.decode().splitlines()
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        inserted = draw.choice(ODD)
        place = draw.randrange(len(lines) + 1)
        indent = " " * draw.choice((0, 2, 4))
        text = "\n".join([*lines[:place], indent + inserted, *lines[place:]])
        yield _case(folder, f"{inserted[:30]!r} in line {place}", text.encode())


def _case(folder: Path, what: str, content: bytes) -> Case:
    path = folder / "study.yaml"
    put(path, content)
    return Case(what, (path.name, *SECTIONS), lambda: ready(path))


def _laughs(merge: bool) -> str:
    first = "&a0 {x: 1}" if merge else "&a0 [x, x]"
    lines = [f"b: [{first}]"]
    for number in range(12):
        held = ", ".join([f"*a{number}"] * 9)
        value = f"{{<<: [{held}]}}" if merge else f"[{held}]"
        lines.append(f"b{number}: &a{number + 1} {value}")
    return "\n".join(lines)


ODD = (
    *("data: twice", "trials: 1e23", "trials: 1.0e+23", "seed: -1", "seed: 0x" + "f" * 4000),
    *("a: &a [*a]", "a: &a {b: *a}", "a: *nothing", "<<: 3", "? [1, 2]\n: 3", "? {a: b}\n: 3"),
    *("a: .nan", "a: -.inf", "a: 2024-99-99", "a: !!binary 0", "a: !!set {a}", "a: !!omap [a: b]"),
    *("a: !!python/object/apply:os.system [true]", "!!python/name:os.system", "%YAML 9.9", "---"),
    *("a: " + "[" * 5000, "a: " + "{b: " * 5000, "a: " + "- " * 5000, "a: " + "9" * 5000),
    *("a: [" + "1," * 30_000 + "]", "a: 'x" + "y" * 200_000 + "'", "a: \x07", "\ta: b", "@a: `b`"),
    *("data: $NO_SUCH_VARIABLE", "data: ${HOME", 'a: "\\U00110000"', "=: =", "...", "- a", "#"),
    *(_laughs(False), _laughs(True)),
)

KINDS: dict[str, Cases] = {
    "study files: bytes": of_bytes,
    "study files: fields": of_fields,
    "study files: YAML": of_yaml,
    "study files: options of spaces": of_options,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_study_file_is_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    assert_clean(KINDS[kind], tmp_path, count=100)


def test_the_values_that_should_not_be_taken_are_not(tmp_path: Path) -> None:
    for section, name, value in (
        ("", "seed", -1),
        ("", "trials", 1e23),
        ("", "trials", 10**23),
        ("split", "seed", 2**31),
        ("split", "val", float("nan")),
        ("budget", "max_macs", "9" * 400 + "G"),
        ("finish", "models", 10**9),
    ):
        content = {k: v for k, v in FULL.items() if k != section}
        changed = {name: value} if section == "" else {section: {name: value}}
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content | changed))
        with pytest.raises(ValueError, match=name):
            load_config(path)


def test_a_space_cannot_be_called_like_a_path(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    for name in ("../../etc", "/a", "a/b", "", ".", "a\0", "x" * 101):
        spaces = {name: FULL["spaces"]["slices"]}
        path.write_text(yaml.safe_dump({**FULL, "spaces": spaces}))
        with pytest.raises(ValueError, match=r"is no name of a space|not valid YAML"):
            load_config(path)
