"""Run folders of anybody: every file of one is damaged in turn."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutations import VALUES, Case, Cases, assert_clean, mutated_bytes, mutated_json, put, says
from pydantic import BaseModel

from nas.candidates.latency_table import LatencyTable, open_table
from nas.recipes.nest import Nest
from nas.recipes.nest_settings import NestFile
from nas.recipes.prune_run import PruneFile
from nas.statistics.repeats import repeated
from nas.study.held_out import measured_on_test
from nas.study.query_scores import kept
from nas.study.run import Run
from nas.study.run_file import read_run_file
from nas.study.warm_start import proposals

FORMATS = Path(__file__).parent.parent / "formats"
sys.path.append(str(FORMATS))  # timm knows the small network of these folders by this module
import tiny_backbone  # noqa: E402, F401


@contextmanager
def inside(folder: Path) -> Iterator[Path]:
    """The old files in a current folder of their own; paths inside them are relative to it."""
    if not (folder / "old").exists():
        shutil.copytree(FORMATS / "unversioned", folder / "old")
    before = Path.cwd()
    os.chdir(folder / "old")
    try:
        yield folder / "old"
    finally:
        os.chdir(before)


def of_file(
    name: str, open: Callable[[Run], object], *, content: bytes | None = None, names: str = ""
) -> Cases:
    """Cases of one file in the folder, its bytes changed and, of JSON and YAML, its fields.

    ``open`` is given the run of before the damage.
    """

    def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
        with inside(folder):
            path, run = Path(name), Run.open("run")
            run.front()
            path.parent.mkdir(exist_ok=True)
            before = path.read_bytes() if content is None else content
            fields = _fields(path, before)
            for what, changed in mutated_bytes(before, seed, count // 2 if fields else count):
                put(path, changed)
                yield Case(what, names or path.name, lambda: open(run))
            for what, text in mutated_json(fields, seed, count // 2) if fields else ():
                put(path, text.encode("utf-8", "surrogatepass"))  # JSON is YAML as well
                yield Case(what, names or path.name, lambda: open(run))

    return cases


def _fields(path: Path, content: bytes) -> Any:
    if path.suffix == ".json":
        return json.loads(content)
    return yaml.safe_load(content) if path.suffix == ".yaml" else None


def of_itself(run: Run) -> None:
    again = Run.open("run")
    _ = again.study_name, again.gallery_fingerprint
    as_written("run/run.json", read_run_file(Path("run")))


def of_study(run: Run) -> None:
    again = Run.open("run").config
    _ = again.model_dump_json()
    found = yaml.safe_load(Path("run/study.yaml").read_bytes())
    assert says(found, again.model_dump(mode="json")), found


def as_written(name: str, content: BaseModel) -> None:
    """Assert that what was read of a JSON file is what it says."""
    found = json.loads(Path(name).read_bytes())
    assert says(found, content.model_dump(mode="json", by_alias=True)), found


def of_repeats(run: Run) -> None:
    groups = repeated(run)
    found = json.loads(Path("run/repeats.json").read_bytes())
    assert sum(each.seeds for each in groups) == len(found)
    assert {each.record.trial for each in groups} == {int(each["trial"]) for each in found}
    total = sum(each.seeds * each.test.mean for each in groups)
    assert total == pytest.approx(sum(float(each["test"]) for each in found))


def of_proposals(run: Run) -> None:
    proposed = proposals(run)
    assert len(proposed) <= len(json.loads(Path("run/warm_start/proposals.json").read_bytes()))


def of_scores(run: Run) -> None:
    measured = measured_on_test(run, run.record(SCORED))
    found = json.loads(Path("run/test_scores.json").read_bytes())
    assert says(found[str(SCORED)], measured.model_dump(mode="json"))


def of_nest(run: Run) -> None:
    Nest.open("nested")
    as_written("nested/nest.json", NestFile.read(Path("nested")))


def of_pruning(run: Run) -> None:
    as_written("cut/prune.json", PruneFile.read(Path("cut")))


def of_table(run: Run) -> None:
    as_written("table.json", open_table("table.json"))


def front(run: Run) -> None:
    """What every command does, and `pareto`; the candidates are ones of the study's spaces."""
    again = Run.open("run")
    for record in again.front():
        assert record.macs > 0
        assert record.route in again.config.spaces


def same_front(run: Run) -> None:
    """What does not belong to a candidate changes none."""
    assert Run.open("run").front() == run.front()


def models(run: Run) -> None:
    shutil.rmtree("run/models", ignore_errors=True)
    for record in run.records():
        if record.route == "cuts":
            run.model(record)


def rows_of_databases(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """One value of one row of Optuna's tables, or a row or table less."""
    with inside(folder):
        run = Run.open("run")
        run.front()
        before = Path("run/study.db").read_bytes()
        for number in range(count):
            draw = random.Random(f"{seed} {number}")
            Path("run/study.db").write_bytes(before)
            what = _spoilt(Path("run/study.db"), draw)
            judge = front if what.startswith(OF_CANDIDATES) else same_front
            yield Case(what, "study.db", lambda judge=judge: judge(run))


def _spoilt(file: Path, draw: random.Random) -> str:
    with closing(sqlite3.connect(file)) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master") if name]
        tables = [
            table
            for table in sorted(tables)
            if not table.startswith(("sqlite_", "ix_"))
            and database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
        ]
        table = draw.choice(tables)
        columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
        column = draw.choice(columns)
        rows = [row for (row,) in database.execute(f'SELECT rowid FROM "{table}"')]
        row = draw.choice(rows)
        match draw.randrange(12):
            case 0:
                database.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (row,))
                return f"{table}: a row less"
            case 1:
                database.execute(f'DROP TABLE "{table}"')
                return f"{table}: gone"
            case 2:
                database.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO other')
                return f"{table}.{column}: renamed"
        value = _cell(draw)
        statement = f'UPDATE OR IGNORE "{table}" SET "{column}" = ? WHERE rowid = ?'
        with contextlib.suppress(sqlite3.IntegrityError):  # a key takes no text
            database.execute(statement, (value, row))
        return f"{table}.{column} of {row} = {str(value)[:30]!r}"


def _cell(draw: random.Random) -> Any:
    value = draw.choice(VALUES)
    if draw.random() < 0.5 or isinstance(value, list | dict):
        return json.dumps(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value) if abs(value) < 10**300 else str(value)
    return value.encode("utf-8", "surrogatepass") if value == "\ud800" else value


def _table() -> bytes:
    blocks = {f"block {i}": 1e-3 * i for i in range(5)}
    space = {"name": "mbconv", "options": {"resolutions": [16]}}
    table = LatencyTable.model_validate(
        {
            **{"version": 1, "spaces": [space], "dimension": 8, "runtime": "pytorch"},
            **{"measured_on": "here", "blocks": blocks, "rounds": 2, "overhead": 1e-4},
        }
    )
    return table.model_dump_json().encode()


def _brought() -> bytes:
    architecture = {"space": "mbconv", "params": {"resolution": 16, "stem_width": 8}}
    return json.dumps([{"route": "slices", "architecture": architecture}] * 2).encode()


OF_CANDIDATES = ("trials", "trial_values", "trial_user_attributes", "studies")
SCORED = min(map(int, json.loads((FORMATS / "unversioned/run/test_scores.json").read_bytes())))
ARTIFACT = sorted(path.name for path in (FORMATS / "unversioned/run/artifacts").iterdir())[0]

KINDS: dict[str, Cases] = {
    "runs: run.json": of_file("run/run.json", of_itself),
    "runs: study.yaml": of_file("run/study.yaml", of_study),
    "runs: study.db": of_file("run/study.db", front),
    "runs: rows of study.db": rows_of_databases,
    "runs: repeats.json": of_file("run/repeats.json", of_repeats),
    "runs: proposals.json": of_file(
        "run/warm_start/proposals.json", of_proposals, content=_brought()
    ),
    "runs: test_scores.json": of_file("run/test_scores.json", of_scores),
    "runs: query_scores": of_file(
        "run/query_scores/trial-0.npy", lambda run: kept(run, run.record(0))
    ),
    "runs: artifacts": of_file(f"run/artifacts/{ARTIFACT}", models, names="trial-"),
    "runs: shared weights": of_file(
        "run/shared/slices.safetensors",
        lambda run: run.routes["slices"].prepare(run.aligner, run.shared),
    ),
    "nests: nest.json": of_file("nested/nest.json", of_nest),
    "prunings: prune.json": of_file("cut/prune.json", of_pruning),
    "latency tables": of_file("table.json", of_table, content=_table()),
}

COUNTS = {
    **{"runs: study.db": 40, "runs: rows of study.db": 50, "runs: artifacts": 40},
    **{"runs: test_scores.json": 60, "runs: shared weights": 50},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    assert_clean(KINDS[kind], tmp_path, count=COUNTS.get(kind, 100))
