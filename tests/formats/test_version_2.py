"""What querynas wrote before cards, runs, prunings and nests had fields of photographs goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from safetensors import safe_open

from nas.deployment.card import Card, read_card
from nas.deployment.evaluate import evaluate_file
from nas.errors import StudyError
from nas.recipes.nest import Nest
from nas.recipes.nest_settings import NestFile
from nas.recipes.prune_settings import PruneFile
from nas.study.run import Run
from nas.study.run_file import RunFile
from searchspaces.support.reading import read_json
from searchspaces.support.section import Versioned

Done = Callable[[str], str]

DATA = "facades:classes=12,images=6,size=24,seed=0"
NEST = f"nest tiny_net --gallery gallery --data {DATA} --epochs 1 --batch 16 --resolution 24"


class _OldCard(Card):
    NEWEST: ClassVar = 1


class _OldRunFile(RunFile):
    NEWEST: ClassVar = 1


class _OldPruneFile(PruneFile):
    NEWEST: ClassVar = 1


class _OldNestFile(NestFile):
    NEWEST: ClassVar = 2


def version(path: str) -> int:
    return int(json.loads(Path(path).read_text())["version"])


def check_refused(path: str, reader: type[Versioned]) -> None:
    """What readers of the version before say of a file that is written now."""
    with pytest.raises(StudyError, match=rf"up to {reader.NEWEST}: update querynas\.$"):
        read_json(Path(path), reader, error=StudyError, remedy="write it again")


def test_a_run_goes_on_to_its_target_and_exports(done: Done) -> None:
    before = Run.open("run").records()
    assert version("run/run.json") == 1
    done("search study.yaml --out run")
    run = Run.open("run")
    assert run.records()[: len(before)] == before
    assert len([r for r in run.records() if r.parent is None]) == 6
    check_refused("run/run.json", _OldRunFile)
    done("export run --trial 0 --format safetensors --out new.safetensors")
    check_refused("new.safetensors.json", _OldCard)
    assert read_card(Path("new.safetensors")).scores == read_card(Path("query.safetensors")).scores
    with safe_open("new.safetensors", "np") as file:
        assert [json.loads(text)["version"] for text in file.metadata().values()] == [2]


def test_an_exported_model_scores_what_its_card_says() -> None:
    assert version("query.safetensors.json") == 1
    card = read_card(Path("query.safetensors"))
    found = evaluate_file("query.safetensors", "gallery", DATA).scores["labels"]
    assert found.cross_test.map == pytest.approx(card.scores.cross_test.map, abs=1e-4)


@pytest.mark.usefixtures("no_onnx")
def test_a_pruning_goes_on(done: Done) -> None:
    assert version("cut/prune.json") == 1
    assert PruneFile.read(Path("cut")).config.projection == "fitted"
    prune = (
        f"prune tiny_net --gallery gallery --data {DATA} --target 0.6x --rounds 1 --epochs 1 "
        "--align-epochs 1 --finish-epochs 1 --resolution 24 --no-pretrained --batch 16 "
        "--round-to 4 --out"
    )
    done(f"{prune} cut")
    assert len(Run.open("cut").records()) == 3
    done(f"{prune} again")
    check_refused("again/prune.json", _OldPruneFile)


def test_a_nest_gives_its_capacities_as_it_was_trained(done: Done) -> None:
    figures = json.loads(Path("nested/cross_tests.json").read_text())
    assert version("nested/nest.json") == 2
    assert Nest.open("nested").config.statistics == "trained"
    printed = done(f"{NEST} --no-pretrained --capacities 50,100 --out nested")
    assert f"{figures['maps'][1][2]:.4f}" in printed
    done(f"{NEST} --no-pretrained --capacities 100 --out again")
    check_refused("again/nest.json", _OldNestFile)
