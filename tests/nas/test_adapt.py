"""`querynas adapt`: frozen encoders in a gallery, on the command line and in Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from compat.tasks import load_study_data
from nas import AdaptConfig, adapt
from nas.alignment.mapping import projected
from nas.deployment.card import read_card
from nas.deployment.composing import compose, write_graph
from nas.deployment.evaluate import evaluate_file
from nas.deployment.formats import FORMATS
from nas.errors import StudyError
from nas.recipes.adapting import Adapted, adapted_within
from pruning import cut, load_model, save_model
from searchspaces import (
    Lift,
    Projection,
    SearchSpaceError,
    count_macs,
    count_onnx_macs,
    timm_query_model,
)
from searchspaces.support.onnx_files import own_session

Cli = Callable[..., tuple[int, str, str]]

DATA = "facades:classes=16,images=8,size=32,seed=0"  # of the gallery in conftest.py


def config(gallery: Path, **changes: Any) -> AdaptConfig:
    fields: dict[str, Any] = {
        "model": "test_resnet",
        "gallery": str(gallery),
        "data": DATA,
        "resolutions": (24, 32),
        "pretrained": False,
    }
    return AdaptConfig(**(fields | changes))


@pytest.fixture(scope="module")
def adapted(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """Two resolutions, all maps, written as safetensors."""
    return adapt(config(gallery), tmp_path_factory.mktemp("adapted") / "model.safetensors")


def test_every_resolution_has_every_map_and_the_best_on_validation_is_chosen(
    adapted: Adapted,
) -> None:
    found = [(row.encoder.resolution, row.map.name) for row in adapted.rows]
    maps = ["ridge", "procrustes", "low-rank", "mlp"]
    assert found == [(side, name) for side in (24, 32) for name in maps]
    best = max(row.map.found.map for row in adapted.rows)
    assert adapted.chosen.map.found.map == best
    costs = {
        name: row.macs for (side, name), row in zip(found, adapted.rows, strict=True) if side == 24
    }
    assert costs["low-rank"] < costs["ridge"] == costs["procrustes"] < costs["mlp"]


def test_the_written_model_scores_what_its_card_says(adapted: Adapted, gallery: Path) -> None:
    assert adapted.exported is not None
    card = read_card(adapted.exported.path)
    assert (card.route, card.fidelity, card.trial) == ("adapt", "adapted", None)
    assert card.macs == adapted.chosen.macs
    assert card.validation.cross_test == pytest.approx(adapted.chosen.map.found.map)
    found = evaluate_file(adapted.exported.path, gallery, DATA).scores["labels"]
    assert found.cross_test.map == pytest.approx(card.scores.cross_test.map)
    assert adapted.scores == card.scores


@pytest.mark.parametrize("name", ["low-rank", "mlp"])
def test_every_kind_of_map_is_saved_cut_and_saved_again(name: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = timm_query_model("test_resnet", 8, resolution=32, pretrained=False)
    channels = plain.projection.channels
    model = plain.with_projection(Projection(channels, 12, lift=Lift(name, 5))).eval()
    images = torch.rand(2, 3, 32, 32)
    save_model(model, tmp_path / "whole.safetensors")
    assert torch.equal(load_model(tmp_path / "whole.safetensors")(images), model(images))
    smaller = cut(model, 0.5).eval()
    assert smaller.projection.channels < channels
    save_model(smaller, tmp_path / "cut.safetensors")
    again = load_model(tmp_path / "cut.safetensors")
    assert torch.equal(again(images), smaller(images))


def test_a_model_of_another_gallery_moves_to_this_one(
    adapted: Adapted, gallery: Path, tmp_path: Path
) -> None:
    assert adapted.exported is not None
    saved = str(adapted.exported.path)
    moved = adapt(
        config(gallery, model=saved, resolutions=(), map="ridge"), tmp_path / "moved.safetensors"
    )
    (ridge,) = (
        row
        for row in adapted.rows
        if row.map.name == "ridge" and row.encoder.resolution == adapted.chosen.encoder.resolution
    )
    assert moved.chosen.map.found.map == pytest.approx(ridge.map.found.map, abs=1e-6)
    assert moved.exported is not None
    assert load_model(moved.exported.path).projection.channels == ridge.map.projection.channels


def test_the_command_prints_a_table_and_json(gallery: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    given = ["adapt", "timm:test_resnet", "--no-pretrained", "--gallery", gallery, "--data", DATA]
    code, printed, _ = cli(*given, "--resolution", "32", "--map", "procrustes", "--out", out)
    assert code == 0
    assert "procrustes" in printed
    assert "chosen" in printed
    assert "Test classes: cross-test mAP" in printed
    assert read_card(out).format == "safetensors"
    code, printed, _ = cli(*given, "--resolution", "24,32", "--map", "mlp", "--json")
    assert code == 0
    content = json.loads(printed)
    assert [row["map"] for row in content["rows"]] == ["ridge", "mlp"] * 2
    assert sum(row["chosen"] for row in content["rows"]) == 1
    assert content["file"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resolution", "48;64"], "--resolution is '48;64'"),
        (["--resolution", "32,32"], "give different sides"),
        (["--resolution", "0"], "greater than or equal to 1"),
        (["--out", "model.tflite"], "must end in one of"),
        (["--checkpoint", "none.safetensors"], "none.safetensors"),
        (["--levels", "2-4"], "--levels is '2-4': give different numbers of levels"),
        (["--levels", "0"], "greater than or equal to 1"),
        (
            ["--levels", "2,5", "--resolution", "32"],
            "'test_resnet' has 4 levels, not 5: give 1 to 4",
        ),
    ],
)
def test_mistakes_are_one_sentence(gallery: Path, cli: Cli, options: list[str], words: str) -> None:
    code, printed, told = cli(
        *("adapt", "test_resnet", "--no-pretrained", "--gallery", gallery, "--data", DATA), *options
    )
    assert (code, printed) == (2, "")
    assert words in told
    assert "Traceback" not in told
    assert len(told) < 400


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """An ONNX file from images to features, by its operator set."""

    def made(opset: int = 17, side: int | None = 32, batch: int | None = None) -> Path:
        path = tmp_path_factory.mktemp("encoder") / f"encoder-{opset}.onnx"
        weights = np.random.default_rng(0).standard_normal((24, 3, 5, 5)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["images", "kernel"], ["maps"], strides=[4, 4]),
                helper.make_node("Relu", ["maps"], ["features"]),  # a name that the map has too
                helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
            ],
            "encoder",
            [
                helper.make_tensor_value_info(
                    "images", onnx.TensorProto.FLOAT, [batch or "n", 3, side or "s", side or "t"]
                )
            ],
            [helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [batch or "n", 24])],
            [numpy_helper.from_array(weights, "kernel")],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )
        onnx.save(model, str(path))
        return path

    return made


@pytest.mark.parametrize("opset", [7, 12, 13, 18, 21])
@pytest.mark.parametrize("lift", [None, Lift("low-rank", 5), Lift("mlp", 7)])
def test_a_composed_graph_gives_what_the_parts_give(
    encoder: Callable[..., Path], opset: int, lift: Lift | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    projection = Projection(24, 12, lift=lift)
    projection.linear.bias.data.normal_()
    graph = compose(encoder(opset), projection)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.opset_import == onnx.load(str(encoder(opset))).opset_import
    run = write_graph(tmp_path / "whole.onnx", graph)
    images = np.random.default_rng(1).random((3, 3, 32, 32), dtype=np.float32)
    features = own_session(encoder(opset)).run(None, {"images": images})[0]
    np.testing.assert_allclose(run(images), projected(projection, features), atol=1e-6)


def test_an_onnx_encoder_becomes_one_onnx_file(
    encoder: Callable[..., Path], gallery: Path, cli: Cli, tmp_path: Path
) -> None:
    given = ["adapt", encoder(side=None), "--gallery", gallery, "--data", DATA, "--json"]
    out = tmp_path / "whole.onnx"
    code, printed, told = cli(*given, "--resolution", "24,32", "--out", out)
    assert code == 0, told
    row = next(row for row in json.loads(printed)["rows"] if row["chosen"])
    card = read_card(out)
    assert (card.macs, card.latency.pytorch) == (row["macs"], None)
    found = evaluate_file(out, gallery, DATA).scores["labels"]
    assert found.cross_test.map == pytest.approx(card.scores.cross_test.map)
    ridge = next(row for row in json.loads(printed)["rows"] if row["map"] == "ridge")
    dimension = card.dimension
    assert ridge["macs"] == 5 * 5 * 24 * 3 * 25 + 24 * dimension  # 5 × 5 places of 24 px


def test_onnx_graphs_cost_what_their_networks_do(tmp_path: Path) -> None:
    model = timm_query_model("test_vit", 8, resolution=160, pretrained=False).eval()
    del model.backbone.network.blocks[2:]  # they are all alike
    FORMATS["onnx"].write(tmp_path / "model.onnx", model)
    found = count_onnx_macs(onnx.load(str(tmp_path / "model.onnx")), 160)
    norms = sum(isinstance(module, torch.nn.LayerNorm) for module in model.modules())
    assert norms
    assert found == pytest.approx(count_macs(model, 160), rel=0.02)


def test_a_function_of_ones_own_makes_an_encoder(
    gallery: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_encoders.py").write_text(
        "import torch\n"
        "def small(width):\n"
        "    conv = torch.nn.Conv2d(3, int(width), 4, 4)\n"
        "    return torch.nn.Sequential(conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
    )
    given = ["adapt", "my_encoders:small,width=20", "--gallery", gallery, "--data", DATA]
    out = tmp_path / "small.onnx"
    code, printed, told = cli(*given, "--resolution", "32", "--map", "ridge", "--out", out)
    assert code == 0, told
    assert "ridge" in printed
    found = evaluate_file(out, gallery, DATA).scores["labels"].cross_test.map
    assert found == pytest.approx(read_card(out).scores.cross_test.map)
    code, _, told = cli(*given, "--out", tmp_path / "small.safetensors")
    assert code == 2
    assert "end --out in .onnx" in told


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        ({"batch": 1}, [], "dynamic batch"),
        ({"side": None}, [], "--resolution"),
        ({}, ["--resolution", "24"], "images of 32 pixels, not 24"),
        ({}, ["--out", "model.safetensors"], "end --out in .onnx"),
        ({}, ["--checkpoint", "x.safetensors"], "leave --checkpoint out"),
        ({}, ["--levels", "2"], "is no timm model, and only these can end at a level"),
        ({"opset": 6}, [], "operator set 6"),
    ],
)
def test_onnx_encoders_that_do_not_fit_are_refused(
    encoder: Callable[..., Path],
    gallery: Path,
    cli: Cli,
    made: dict[str, Any],
    options: list[str],
    words: str,
) -> None:
    file = encoder(**made)
    code, printed, told = cli("adapt", file, "--gallery", gallery, "--data", DATA, *options)
    assert (code, printed) == (2, "")
    assert words in told


def test_the_largest_resolution_within_a_bound_is_adapted(gallery: Path) -> None:
    given = config(gallery, resolutions=(60,))
    data = load_study_data(given.data, given.gallery, given.split)

    def macs(side: int) -> int:
        dimension = data.gallery.dimension
        return count_macs(
            timm_query_model("test_resnet", dimension, resolution=side, pretrained=False), side
        )

    found = adapted_within(macs(48) - 1, given, data)
    assert found is not None
    assert (found.encoder.resolution, found.macs, found.map.name) == (40, macs(40), "ridge")
    assert adapted_within(macs(32) - 1, given, data) is None


def test_encoders_of_several_levels_share_one_pass_over_the_pictures(
    gallery: Path, tmp_path: Path
) -> None:
    """Each scores by itself what it scored on its share of the deepest one's features."""
    given = config(gallery, resolutions=(32,), levels=(3, 1), map="ridge")
    done = adapt(given, tmp_path / "model.safetensors")
    assert [row.encoder.levels for row in done.rows] == [1, 3]
    assert done.rows[0].macs < done.rows[1].macs
    for row in done.rows:
        alone = row.encoder.score(row.map.projection, done.data.val).cross_test.map
        assert alone == pytest.approx(row.map.found.map, abs=1e-6)

    assert done.exported is not None
    levels = done.chosen.encoder.levels
    assert levels is not None
    assert read_card(done.exported.path).architecture.params["levels"] == levels
    origin = load_model(done.exported.path).origin
    assert origin is not None
    assert origin["timm"]["levels"] == [f"layer{n}" for n in range(1, levels + 1)]


def test_the_command_takes_levels(gallery: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    given = ["adapt", "timm:test_resnet", "--no-pretrained", "--gallery", gallery, "--data", DATA]
    given += ["--resolution", "24", "--map", "ridge", "--levels"]
    code, printed, told = cli(*given, "2", "--out", out)
    assert code == 0, told
    assert "levels" in printed
    card = read_card(out)
    assert card.architecture.params["levels"] == 2
    found = evaluate_file(out, gallery, DATA).scores["labels"].cross_test.map
    assert found == pytest.approx(card.scores.cross_test.map)
    code, printed, _ = cli(*given, "1,2", "--json")
    assert code == 0
    rows = json.loads(printed)["rows"]
    assert [row["levels"] for row in rows] == [1, 2]
    assert rows[1]["macs"] == card.macs


def test_only_timm_models_that_can_end_at_a_level_take_levels(
    adapted: Adapted, gallery: Path
) -> None:
    assert adapted.exported is not None
    saved = str(adapted.exported.path)
    with pytest.raises(StudyError, match="no timm model, and only these can end at a level"):
        adapt(config(gallery, model=saved, resolutions=(), levels=(2,)))
    with pytest.raises(SearchSpaceError, match=r"'test_vit' cannot be had .* use its pooled"):
        adapt(config(gallery, model="test_vit", resolutions=(32,), levels=(2,)))
