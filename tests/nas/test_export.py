"""Exported files compute what PyTorch computes, stand alone, and never stay when they do not."""

import copy
import dataclasses
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import nas.deployment.write
from compat.evaluation.collapse import directed, indistinct
from nas.deployment.card import Card, Format, Validation, read_card
from nas.deployment.evaluate import evaluate_file
from nas.deployment.formats import FORMATS
from nas.deployment.formats import Run as Running
from nas.deployment.write import Exported, Source, write_model
from nas.errors import StudyError
from nas.study.exports import best_under, export
from nas.study.front import Record
from nas.study.run import Run
from pruning import load_model
from searchspaces import QueryModel, backbone_levels, timm_query_model

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


def smallest_of(run: Run, route: str) -> Record:
    return min((r for r in run.records() if r.route == route), key=lambda r: r.macs)


@pytest.fixture(scope="module")
def exported(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """One candidate of the supernet in every format."""
    folder = tmp_path_factory.mktemp("exported")
    record = smallest_of(tiny_run, "slices")
    return {
        format: export(tiny_run, record, format, folder / f"{format}{SUFFIXES[format]}")
        for format in get_args(Format)
    }


def run_without_us(path: Path, images: np.ndarray) -> np.ndarray:
    """Run a file as somebody else would, who has the card and no querynas code."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["embeddings"], {"images": images})[0]
    with torch.inference_mode():
        return torch.export.load(path).module()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_a_program_gives_pytorchs_vectors_for_any_batch(
    tiny_run: Run, exported: dict[str, Exported], format: str, batch: int
) -> None:
    done = exported[format]
    model = tiny_run.model(tiny_run.record(done.card.trial)).cpu()
    side = done.card.input.resolution
    images = np.random.default_rng(batch).random((batch, 3, side, side), dtype=np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    found = run_without_us(done.path, images)
    assert found.shape == (batch, done.card.dimension)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_safetensors_give_pytorchs_vectors(tiny_run: Run, exported: dict[str, Exported]) -> None:
    done = exported["safetensors"]
    model = tiny_run.model(tiny_run.record(done.card.trial)).cpu()
    images = torch.rand(2, 3, model.resolution, model.resolution)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(done.path)(images), model(images))


def test_onnx_names_its_ends_and_holds_its_weights(exported: dict[str, Exported]) -> None:
    import onnx

    model = onnx.load(str(exported["onnx"].path), load_external_data=False)
    onnx.checker.check_model(model)
    assert [node.name for node in model.graph.input] == ["images"]
    assert [node.name for node in model.graph.output] == ["embeddings"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert max(opset.version for opset in model.opset_import) >= 18


def test_no_file_tells_where_the_code_lay(exported: dict[str, Exported]) -> None:
    places = [Path(module.__file__ or "").parents[1] for module in (nas, torch)]
    for done in exported.values():
        contents = [done.path.read_bytes(), done.card_path.read_bytes()]
        if zipfile.is_zipfile(done.path):
            with zipfile.ZipFile(done.path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for content in contents:
            assert not any(str(place).encode() in content for place in places), done.path


def test_a_pruned_backbone_is_exported_too(tiny_run: Run, tmp_path: Path) -> None:
    done = export(tiny_run, smallest_of(tiny_run, "cuts"), "onnx", tmp_path / "cut.onnx")
    assert done.max_difference <= nas.deployment.write.TOLERANCE
    assert done.collapsed is None
    assert sorted(f.name for f in tmp_path.iterdir()) == ["cut.onnx", "cut.onnx.json"]


@pytest.mark.parametrize("format", get_args(Format))
def test_the_card_states_what_the_file_itself_achieves(
    tiny_run: Run, exported: dict[str, Exported], format: str
) -> None:
    done = exported[format]
    task = tiny_run.data.test
    images = task.pixels(done.card.input.resolution).transpose(0, 3, 1, 2).astype(np.float32) / 255
    if format == "safetensors":
        model = tiny_run.model(tiny_run.record(done.card.trial)).cpu()
        vectors = model(torch.from_numpy(images)).detach().numpy()
    else:
        vectors = run_without_us(done.path, images)
    labels = task.images.labels
    gallery = task.vectors / np.linalg.norm(task.vectors, axis=1, keepdims=True)
    precisions = []
    for query, similarities in enumerate(vectors @ gallery.T):
        order = [i for i in np.argsort(-similarities) if i != query]
        hits = np.cumsum([labels[i] == labels[query] for i in order])
        positives = [rank for rank, i in enumerate(order, 1) if labels[i] == labels[query]]
        precisions.append(np.mean([hits[rank - 1] / rank for rank in positives]))
    measure = done.card.scores.cross_test
    assert measure.map == pytest.approx(np.mean(precisions), abs=1e-4)
    assert measure.interval[0] <= measure.map <= measure.interval[1]


def test_the_card_is_read_back_as_it_was(tiny_run: Run, exported: dict[str, Exported]) -> None:
    done = exported["onnx"]
    record = tiny_run.record(done.card.trial)
    assert read_card(done.path) == done.card
    assert Card.model_validate_json(done.card_path.read_text()) == done.card
    assert done.card.macs == record.macs
    assert done.card.architecture.params == dict(record.architecture.params)
    assert done.card.gallery.fingerprint == tiny_run.data.gallery.fingerprint
    assert done.card.latency.onnxruntime is not None
    assert exported["safetensors"].card.latency.onnxruntime is None


def test_a_file_that_differs_is_not_kept(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_another(path: Path, model: QueryModel) -> Running:
        other = copy.deepcopy(model)
        torch.nn.init.normal_(other.projection.linear.weight)
        return own.write(path, other)

    own = FORMATS["safetensors"]
    monkeypatch.setitem(FORMATS, "safetensors", dataclasses.replace(own, write=write_another))
    with pytest.raises(StudyError, match="differs from PyTorch by"):
        export(tiny_run, tiny_run.records()[0], "safetensors", tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_written_is_refused(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, model: QueryModel) -> None:
        path.write_text("half")
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], write=fail))
    with pytest.raises(StudyError, match=r"cannot be exported as onnx \(no such operator and a"):
        export(tiny_run, tiny_run.records()[0], "onnx", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_ending_has_to_fit_the_format(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"must end in \.onnx"):
        export(tiny_run, tiny_run.records()[0], "onnx", tmp_path / "model.pt2")


def source(run: Run) -> Source:
    return Source(
        name="a test",
        run=run.path,
        trial=None,
        architecture=run.records()[0].architecture,
        route="none",
        fidelity="untrained",
        gallery=run.config.gallery,
        data=run.config.data,
        split=run.config.split,
        validation=Validation(cross_test=0.5, interval=(0.4, 0.6)),
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_a_collapsed_model_is_written_with_the_scores_that_it_deserves(
    tiny_run: Run, tmp_path: Path, suffix: str
) -> None:
    model = tiny_run.model(smallest_of(tiny_run, "cuts"))
    torch.nn.init.zeros_(model.projection.linear.weight)
    torch.nn.init.zeros_(model.projection.linear.bias)
    task = tiny_run.data.test
    done = write_model(model, tmp_path / f"dead{suffix}", source(tiny_run), tiny_run.data)
    count = len(task.images)
    assert done.collapsed is not None
    assert f"{count} of {count} test images" in done.collapsed
    constant = task.score(np.ones((len(task.images), model.dimension), np.float32))
    assert done.card.scores.self_test.map == pytest.approx(constant.self_test.map)
    assert done.card.scores.cross_test.map == pytest.approx(constant.cross_test.map)
    assert done.card.scores.self_test.map < 0.5 * done.card.scores.paragon.map
    found = evaluate_file(done.path, tiny_run.config.gallery, tiny_run.config.data)
    assert found.scores["labels"].cross_test.map == pytest.approx(constant.cross_test.map)


def test_a_model_that_is_not_finite_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    model = tiny_run.model(smallest_of(tiny_run, "cuts"))
    torch.nn.init.constant_(model.projection.linear.weight, torch.nan)
    with pytest.raises(StudyError, match="of a test gives embeddings that are not finite"):
        write_model(model, tmp_path / "nan.safetensors", source(tiny_run), tiny_run.data)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    model = tiny_run.model(smallest_of(tiny_run, "cuts"))
    with pytest.raises(StudyError, match=r"must end in one of \.safetensors, \.onnx, \.pt2"):
        write_model(model, tmp_path / "model.bin", source(tiny_run), tiny_run.data)


def test_embeddings_that_say_nothing_are_counted() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 4)).astype(np.float32)
    assert indistinct(vectors) == 0
    assert directed(vectors) is vectors
    vectors[[1, 4]] = 0
    assert indistinct(vectors) == 2
    found = directed(vectors)
    np.testing.assert_array_equal(found[[1, 4]], np.full((2, 4), 0.5, np.float32))
    np.testing.assert_array_equal(found[[0, 2, 3, 5]], vectors[[0, 2, 3, 5]])
    assert not vectors[1].any()
    assert indistinct(np.zeros((3, 4))) == 3
    alike = np.tile(rng.normal(size=4), (5, 1)) * rng.uniform(1, 9, size=(5, 1))
    assert indistinct(alike) == 5
    vectors[0, 0] = np.nan
    assert np.isnan(directed(vectors)[0, 0])


def test_best_under_a_budget(tiny_run: Run) -> None:
    records = tiny_run.records()
    budget = sorted(r.macs for r in records)[len(records) // 2]
    best = best_under(tiny_run, budget)
    assert best.macs <= budget
    assert best.cross_test == max(r.cross_test for r in records if r.macs <= budget)
    smallest = min(records, key=lambda r: r.macs)
    with pytest.raises(StudyError, match=f"its smallest is trial {smallest.trial} "):
        best_under(tiny_run, smallest.macs - 1)


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_a_network_that_ends_at_a_level_is_written_too(tmp_path: Path, format: Format) -> None:
    levels = backbone_levels("test_efficientnet")[:3]
    model = timm_query_model(
        "test_efficientnet", 8, resolution=32, levels=levels, pretrained=False
    ).eval()
    images = np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)
    path = tmp_path / f"query{SUFFIXES[format]}"
    FORMATS[format].write(path, model)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run_without_us(path, images), expected, atol=1e-5)
