"""What querynas wrote before files carried a format version still opens, goes on and exports."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compat.gallery import GallerySpace
from nas.candidates.latency_table import open_table
from nas.deployment.card import read_card
from nas.deployment.evaluate import evaluate_file
from nas.recipes.nest import Nest
from nas.reporting.page import report
from nas.statistics.repeats import repeated
from nas.study.query_scores import kept
from nas.study.run import Run
from pruning import load_model
from searchspaces import count_macs, create_space

Done = Callable[[str], str]

DATA = "facades:classes=12,images=6,size=24,seed=0"


@pytest.mark.parametrize("name", ["gallery", "reduced", "codes", "fused", "hashed"])
def test_a_gallery_opens(name: str, done: Done) -> None:
    gallery = GallerySpace.open(name)
    assert gallery.fingerprint == json.loads(Path(name, "gallery.json").read_text())["fingerprint"]
    assert len(gallery.vectors) == len(gallery.ids) == 72
    assert "72 ×" in done(f"gallery info {name}")


def test_a_gallery_keeps_its_views_and_classifier() -> None:
    gallery = GallerySpace.open("gallery")
    assert gallery.view_vectors is not None
    assert gallery.view_vectors.shape == (1, 42, 8)
    assert gallery.classifier is not None
    assert gallery.classifier.shape == (12, 8)


def test_a_gallery_network_embeds_as_it_did(done: Done) -> None:
    done(f"gallery build --data {DATA} --model model.safetensors --views 0 --out again")
    old, new = GallerySpace.open("gallery"), GallerySpace.open("again")
    np.testing.assert_allclose(new.vectors, old.vectors, atol=1e-4)


def test_a_begun_gallery_is_built_to_its_end(done: Done) -> None:
    done(f"gallery build --data {DATA} --model model.safetensors --views 1 --out begun/gallery")
    old, new = GallerySpace.open("gallery"), GallerySpace.open("begun/gallery")
    assert new.fingerprint == old.fingerprint


def test_a_begun_gallery_network_is_trained_to_its_end(done: Done) -> None:
    done(
        f"gallery train --data {DATA} --arch timm:tiny_net --size 24 --dimension 8 "
        "--epochs 2 --out begun/model.safetensors"
    )
    done(f"gallery build --data {DATA} --model begun/model.safetensors --out again")
    assert not Path("begun/model.safetensors.partial").exists()


def test_a_begun_search_goes_on_to_its_end(done: Done) -> None:
    done("search begun.yaml --out begun/run")
    assert len(Run.open("begun/run").records()) == 2


def test_a_run_shows_its_front_its_scores_and_its_repeats(done: Done) -> None:
    run = Run.open("run")
    assert [record.trial for record in run.records()] == [0, 1, 2, 3, 4]
    assert {record.route for record in run.records()} == {"slices", "cuts"}
    assert len(json.loads(done("pareto run --json"))) == len(run.front())
    for record in run.records():
        scores = kept(run, record)
        assert scores is not None
        assert np.nanmean(scores) == pytest.approx(record.cross_test, abs=1e-6)
    assert [each.record.trial for each in repeated(run)] == [0]


def test_a_run_rebuilds_its_models_as_they_were_scored() -> None:
    run = Run.open("run")
    for record in run.records():
        model = run.model(record)
        assert count_macs(model, model.resolution) == record.macs
        score = run.data.val.score(run.data.val.embed(model))
        assert score.cross_test.map == pytest.approx(record.cross_test, abs=1e-3)


def test_a_run_goes_on_to_its_target_and_exports_and_reports(done: Done) -> None:
    before = Run.open("run").records()
    done("search study.yaml --out run")
    run = Run.open("run")
    after = run.records()
    assert after[: len(before)] == before
    assert len([r for r in after if r.parent is None]) == 6
    trial = after[-1].trial
    for kind, name in (("safetensors", "new.safetensors"), ("onnx", "new.onnx")):
        done(f"export run --trial {trial} --format {kind} --out {name}")
        assert evaluate_file(name, "gallery", DATA).scores["labels"].cross_test.map == (
            pytest.approx(read_card(Path(name)).scores.cross_test.map, abs=1e-6)
        )
    assert "repeat" in report(run).read_text()


@pytest.mark.parametrize(
    "name", ["query.safetensors", "query.onnx", "cut/model.safetensors", "cut/model.onnx"]
)
def test_an_exported_model_scores_what_its_card_says(name: str) -> None:
    card = read_card(Path(name))
    found = evaluate_file(name, "gallery", DATA).scores["labels"]
    assert found.cross_test.map == pytest.approx(card.scores.cross_test.map, abs=1e-4)


def test_a_saved_model_is_what_it_was() -> None:
    model = load_model("query.safetensors")
    assert count_macs(model, model.resolution) == read_card(Path("query.safetensors")).macs


def test_a_pruning_is_reopened_with_its_files(done: Done) -> None:
    before = {p: p.read_bytes() for p in Path("cut/artifacts").iterdir()}
    done(
        f"prune tiny_net --gallery gallery --data {DATA} --target 0.6x --rounds 1 "
        "--epochs 1 --align-epochs 1 --finish-epochs 1 --resolution 24 --no-pretrained "
        "--batch 16 --round-to 4 --out cut"
    )
    assert {p: p.read_bytes() for p in Path("cut/artifacts").iterdir()} == before
    assert len(Run.open("cut").records()) == 3


def test_a_nest_gives_its_capacities(done: Done) -> None:
    figures = json.loads(Path("nested/cross_tests.json").read_text())
    nest = Nest.open("nested")
    assert nest.model.capacities == (1.0, 0.5)
    done("nest extract nested --capacity 50% --out half.safetensors")
    found = read_card(Path("half.safetensors")).scores.cross_test.map
    assert found == pytest.approx(figures["maps"][1][2], abs=1e-3)


def test_a_latency_table_adds_up() -> None:
    table = open_table("latency.json")
    space = create_space("mbconv", **table.spaces[0].options)
    seconds = table.seconds(space, space.smallest(), table.dimension)
    assert 0 < seconds < sum(table.blocks.values()) + table.overhead + 1e-9
