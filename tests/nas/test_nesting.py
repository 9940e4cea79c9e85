"""Training many capacities at once, resuming, the matrix of cross-tests, and the command."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from compat.errors import CompatError
from compat.losses import create_loss
from compat.training import align
from compat.training.config import TrainingConfig
from nas.cli.nest import app
from nas.deployment.card import read_card
from nas.deployment.evaluate import evaluate_file
from nas.deployment.profiles import profile
from nas.errors import StudyError
from nas.recipes import Nest, NestConfig
from nas.recipes.nest_settings import NestFile
from nas.reporting.cross_matrix import CrossTests, cross_tests, heatmap
from pruning import PruningError, load_model, save_model
from pruning.nested import METHODS, NestedModel, integrate
from pruning.nested.merging import Merge
from searchspaces import QueryModel, SearchSpaceError, count_macs, timm_query_model

MadeOnce = Callable[[str, Callable[[Path], object]], Path]

DATA = "facades:classes=16,images=8,size=32,seed=0"


def config(gallery: Path, **fields: Any) -> NestConfig:
    given = {
        "model": "timm:test_resnet",
        "gallery": str(gallery),
        "data": DATA,
        "capacities": (0.3, 0.6, 1.0),
        "resolution": 32,
        "pretrained": False,
        "loss": "regression",
        "projection": "random",
        "centred": False,
        "statistics": "trained",
        "training": TrainingConfig(epochs=4, batch=16, validate_every=2, ema=0.5),
        "calibration_images": 64,
    }
    return NestConfig.model_validate(given | fields)


def test_a_network_comes_with_the_weights_of_a_file(gallery: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    network = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), file)
    once = TrainingConfig(epochs=1, batch=32)
    given = config(gallery, checkpoint=str(file), statistics="kept", training=once)
    assert given.keeps_statistics
    assert not config(gallery, statistics="kept").keeps_statistics
    nest = Nest.create(tmp_path / "nest", given)
    nest.train()
    kernel = load_model(tmp_path / "nest/start.safetensors").backbone.network.conv1[0].weight
    own = network.conv1[0].weight
    torch.testing.assert_close(kernel.sum(), own.sum())  # channels are in another order
    saved = config(gallery, model=str(tmp_path / "nest/start.safetensors"), checkpoint=str(file))
    with pytest.raises(StudyError, match="has weights of its own; leave --checkpoint out"):
        Nest.create(tmp_path / "again", saved).train()


@pytest.fixture(scope="module", autouse=True)
def to_be_trained() -> Iterator[None]:
    """The start, which may score best on so few validation images, is not kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.recipes.nest_training.align", partial(align, from_start=False))
        yield


@pytest.fixture(scope="module")
def trained(gallery: Path, made_once: MadeOnce) -> tuple[Nest, CrossTests]:
    """A nest that was trained to its end; read it, do not change it."""

    def make(path: Path) -> None:
        Nest.create(path, config(gallery)).train()

    nest = Nest.open(made_once("nest", make))
    return nest, nest.train()


def cosines(nest: Nest, model: NestedModel, capacities: tuple[float, ...]) -> list[float]:
    """Mean cosine to the gallery vectors of the training images, BatchNorm re-estimated."""
    data = nest.data.training(32)
    images = torch.tensor(data.pictures[0]).permute(0, 3, 1, 2) / 255
    target = data.targets.gallery
    found = []
    for capacity in capacities:
        network = model.extract(capacity)
        nest._aligner.calibrate(network, 64)
        with torch.inference_mode():
            found.append(float((network(images) * target).sum(dim=1).mean()))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_training_brings_every_capacity_nearer(
    gallery: Path, tmp_path: Path, method: str, trained: tuple[Nest, CrossTests]
) -> None:
    if method == "structured":
        nest = trained[0]
    else:
        nest = Nest.create(tmp_path / method, config(gallery, method=method))
        nest.train()
    capacities = nest.model.capacities
    before = cosines(nest, nest._untrained(), capacities)
    after = cosines(nest, nest.model, capacities)
    assert all(late > early + 0.05 for early, late in zip(before, after, strict=True))


def test_a_step_may_train_the_ends_and_any_between(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = NestedModel.forward, []

    def watched(self: NestedModel, images: Tensor, capacity: float = 1.0) -> Tensor:
        seen.append(capacity)
        return original(self, images, capacity)

    monkeypatch.setattr(NestedModel, "forward", watched)
    twice = TrainingConfig(epochs=2, batch=16, validate_every=2)
    listed = {"capacities": (0.3, 0.6, 0.8, 1.0), "per_step": 3, "training": twice}
    nest = Nest.create(tmp_path / "any", config(gallery, **listed))
    nest.train()
    steps = [seen[i : i + 3] for i in range(0, len(seen), 3)]
    assert all((step[0], step[2]) == (1.0, 0.3) for step in steps)
    assert all(0.3 < step[1] < 1.0 for step in steps)
    assert len({step[1] for step in steps}) > 5
    assert set(nest.model.state_dict()) == set(nest._untrained().state_dict())
    seen.clear()
    listed["training"] = TrainingConfig(epochs=1, batch=32)
    Nest.create(tmp_path / "own", config(gallery, method="switchable", **listed)).train()
    assert set(seen) == {0.3, 0.6, 0.8, 1.0}


def test_capacities_between_are_compatible_too(trained: tuple[Nest, CrossTests]) -> None:
    nest, _ = trained
    start = cosines(nest, nest._untrained(), (0.45,))
    assert cosines(nest, nest.model, (0.45,))[0] > start[0] + 0.05


def test_the_matrix_is_square_and_ends_in_the_fixed_gallery(
    trained: tuple[Nest, CrossTests],
) -> None:
    nest, tests = trained
    assert tests.names == ("100%", "60%", "30%", "gallery")
    assert tests.maps.shape == (4, 4)
    task = nest.data.test
    for row, capacity in enumerate(nest.model.capacities):
        model = nest.extract(capacity)
        score = task.score(task.embed(model))
        assert tests.maps[row, -1] == pytest.approx(score.cross_test.map)
        assert tests.maps[row, row] == pytest.approx(score.self_test.map)
        assert tests.maps[-1, -1] == pytest.approx(score.paragon.map)
        assert tests.with_gallery(tests.names[row]) == tests.maps[row, -1]
    kept = json.loads((nest.path / "cross_tests.json").read_text())
    np.testing.assert_allclose(kept["maps"], tests.maps)
    assert "Plotly" in (nest.path / "cross_tests.html").read_text()


def test_who_asks_and_who_answers(trained: tuple[Nest, CrossTests]) -> None:
    task = trained[0].data.test
    rng = np.random.default_rng(0)
    noise = rng.normal(size=task.vectors.shape).astype(np.float32)
    tests = cross_tests(task, {"noise": noise, "same": task.vectors})
    np.testing.assert_allclose(tests.maps[1], tests.maps[2])
    assert tests.maps[1, 2] > tests.maps[0, 2]
    assert tests.maps[1, 2] > tests.maps[1, 0]
    shown = heatmap(tests).data[0]
    assert list(shown.y) == ["noise", "same", "gallery"]
    np.testing.assert_array_equal(shown.z, tests.maps)


def test_an_extracted_file_is_an_ordinary_query_model(
    trained: tuple[Nest, CrossTests], gallery: Path, tmp_path: Path
) -> None:
    nest, tests = trained
    card = nest.write(0.6, tmp_path / "q.safetensors").card
    assert torch.equal(
        load_model(tmp_path / "q.safetensors")(torch.ones(1, 3, 32, 32)),
        nest.extract(0.6).cpu()(torch.ones(1, 3, 32, 32)),
    )
    done = evaluate_file(tmp_path / "q.safetensors", gallery, DATA)
    assert done.scores["labels"].cross_test.map == pytest.approx(tests.with_gallery("60%"))
    assert profile(str(tmp_path / "q.safetensors")).macs == card.macs
    between = nest.write(0.45, tmp_path / "between.safetensors").card
    assert nest.write(0.3, tmp_path / "s.safetensors").card.macs < between.macs < card.macs


@pytest.mark.parametrize("name", ["q.onnx", "q.pt2"])
def test_a_capacity_is_exported_as_a_program(
    trained: tuple[Nest, CrossTests], gallery: Path, tmp_path: Path, name: str
) -> None:
    nest, _ = trained
    done = nest.write(0.45, tmp_path / name)
    card = read_card(tmp_path / name)
    assert card == done.card
    assert (card.trial, card.route, card.architecture.params["capacity"]) == (None, "nest", 0.45)
    assert (card.latency.onnxruntime is not None) == (name == "q.onnx")
    assert done.max_difference < 1e-4
    model = nest.extract(0.45)
    task = nest.data.test
    score = task.score(task.embed(model))
    assert card.scores.cross_test.map == pytest.approx(score.cross_test.map, abs=1e-4)
    if name == "q.onnx":  # a program of torch.export is opened by nobody
        found = evaluate_file(tmp_path / name, gallery, DATA).scores["labels"].cross_test.map
        assert found == pytest.approx(card.scores.cross_test.map, abs=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, f"{name}.json"]


def test_a_killed_training_ends_like_an_unbroken_one(
    trained: tuple[Nest, CrossTests],
    gallery: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    applied = 0
    whole = Merge.apply

    def dies(self: Any, gradients: Any, step: int) -> None:
        nonlocal applied
        applied += 1
        if applied == 11:  # in the third epoch, after the first validation
            raise KeyboardInterrupt
        whole(self, gradients, step)

    monkeypatch.setattr(Merge, "apply", dies)
    with pytest.raises(KeyboardInterrupt):
        Nest.create(tmp_path / "n", config(gallery)).train()
    monkeypatch.undo()
    assert (tmp_path / "n/nested.checkpoint").exists()
    with pytest.raises(StudyError, match="not trained to its end"):
        _ = Nest.open(tmp_path / "n").model
    again = Nest.create(tmp_path / "n", config(gallery))
    again.train()
    assert not (tmp_path / "n/nested.checkpoint").exists()
    expected = trained[0].model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in again.model.state_dict().items())


def merged(nest: Nest, method: str, rule: Any) -> tuple[NestedModel, list[dict[str, Tensor]]]:
    """A nested model after one merge, and each capacity's gradients before it, by name."""
    torch.manual_seed(0)
    dense = timm_query_model("test_resnet", 16, resolution=32, pretrained=False)
    nested = NestedModel(dense, (0.5, 1.0), method=method)  # type: ignore[arg-type]
    loss = create_loss("regression")
    merge = Merge(nested, loss, rule, 0)
    names = {parameter: name for name, parameter in nested.named_parameters()}
    gradients = []
    for capacity in nested.capacities:
        nested(torch.rand(4, 3, 32, 32), capacity)[:, 0].sum().backward()
        gradients.append(merge.collect())
        assert all(parameter.grad is None for parameter in nested.parameters())
    with torch.no_grad():
        merge.apply(gradients, 0)
    return nested, [{names[p]: g for p, g in each.items()} for each in gradients]


def test_which_gradient_goes_where(trained: tuple[Nest, CrossTests]) -> None:
    nested, (dense, half) = merged(trained[0], "structured", "integrated")
    for name, parameter in nested.named_parameters():
        assert parameter.grad is not None
        if "bn" in name or "projection" in name:
            expected = dense[name] + half[name] if name in half else dense[name]
        elif name.endswith("conv2.weight"):
            expected = integrate([dense[name], half[name]])
        else:
            continue
        torch.testing.assert_close(parameter.grad, expected)
    nested, (dense, half) = merged(trained[0], "structured", "sum")
    name = "dense.projection.linear.weight"
    torch.testing.assert_close(nested.get_parameter(name).grad, dense[name] + half[name])
    nested, (dense, half) = merged(trained[0], "masks", "integrated")
    name = "dense.projection.linear.weight"
    torch.testing.assert_close(nested.get_parameter(name).grad, dense[name])
    assert "scores.scores.0" not in dense
    name = "scores.scores.0"
    assert not torch.equal(nested.get_parameter(name).grad, half[name])  # the dense network too
    nested, (dense, half) = merged(trained[0], "switchable", "pcgrad")
    private = [name for name, _ in nested.shells.named_parameters()]
    for name in private:
        torch.testing.assert_close(nested.shells.get_parameter(name).grad, half[f"shells.{name}"])


def test_a_saved_query_model_can_be_nested(gallery: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    nest = Nest(tmp_path, config(gallery))
    dimension = nest.data.gallery.dimension
    model = timm_query_model("test_resnet", dimension, resolution=32, pretrained=False)
    save_model(model, tmp_path / "m.safetensors")
    once = TrainingConfig(epochs=1, batch=32)
    given = config(gallery, model=str(tmp_path / "m.safetensors"), training=once, pairwise=0.5)
    tests = Nest.create(tmp_path / "n", given).train()
    assert tests.maps.shape == (4, 4)


@pytest.mark.parametrize("statistics", ["kept", "trained"])
def test_capacities_of_a_network_that_was_trained_before_keep_its_statistics(
    gallery: Path, tmp_path: Path, statistics: str
) -> None:
    torch.manual_seed(1)
    dimension = Nest(tmp_path, config(gallery)).data.gallery.dimension
    model = timm_query_model("test_resnet", dimension, resolution=32, pretrained=False)
    for norm in batch_norms(model).values():
        nn.init.normal_(norm.running_mean, std=0.1)
    save_model(model, tmp_path / "m.safetensors")
    once = TrainingConfig(epochs=1, batch=32)
    changes = {"statistics": statistics, "training": once, "per_step": 3}
    given = config(gallery, model=str(tmp_path / "m.safetensors"), **changes)
    assert given.keeps_statistics == (statistics == "kept")
    assert not given.model_copy(update={"method": "masks"}).keeps_statistics
    nest = Nest.create(tmp_path / "n", given)
    nest.train()
    dense = batch_norms(nest.model.extract(1.0))
    kept = [  # channels are in another order
        torch.equal(norm.running_mean.sort()[0], dense[name].running_mean.sort()[0])
        for name, norm in batch_norms(model).items()
    ]
    assert all(kept) if statistics == "kept" else not any(kept)
    for capacity in (0.3, 0.5):  # one that was trained, and one between
        parts = batch_norms(nest.extract(capacity))
        first = [
            torch.equal(norm.running_var, dense[name].running_var[: norm.num_features])
            for name, norm in parts.items()
        ]
        assert all(first) if statistics == "kept" else not all(first)


def batch_norms(model: QueryModel) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def test_the_command(gallery: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "n")
    arguments = ["timm:test_resnet", "--gallery", str(gallery), "--data", DATA, "--out", out]
    arguments += ["--capacities", "40,100", "--epochs", "1", "--batch", "32", "--resolution", "32"]
    done = run(app, [*arguments, "--no-pretrained"])
    assert done.exit_code == 0, done.output
    assert re.search(r"40% +│ 0\.\d{4} │ 0\.\d{4} │", done.output)
    again = run(app, ["train", *arguments, "--no-pretrained"])
    assert re.search(r"40% │ +6\d% │.*│ +0\.[34]\d\d │ +\d+\.\d\d ms │ +\d\.\d{3}", done.output)
    first, second = (each.output[each.output.index("Cross-tests") :] for each in (done, again))
    assert first == second
    file = tmp_path / "q.onnx"
    done = run(app, ["extract", out, "--capacity", "37%", "--out", str(file)])
    assert done.exit_code == 0, done.output
    assert re.search(r"\d ms in PyTorch, \d+\.\d\d ms in ONNX Runtime", done.output)
    assert read_card(file).trial is None
    assert "37% was not trained, only adapted; a nest trained with --per-step" in done.output
    done = run(app, [*arguments, "--no-pretrained", "--val", "1"])
    assert "--val is 1.0: Input should be less than 1" in str(done.exception)
    done = run(app, [*arguments, "--no-pretrained", "--method", "masks"])
    assert isinstance(done.exception, StudyError)
    assert "begun with method = 'structured', not 'masks'" in str(done.exception)


@pytest.mark.parametrize("version", [0, 1])
def test_settings_under_their_old_names_are_the_same(
    gallery: Path, tmp_path: Path, version: int
) -> None:
    NestFile.of(config(gallery), "f00").write(tmp_path)
    written = json.loads((tmp_path / "nest.json").read_text())
    assert (written["version"], written["config"]["resolution"]) == (NestFile.NEWEST, 32)
    old = written["config"] | {"size": written["config"].pop("resolution")}
    (tmp_path / "nest.json").write_text(json.dumps(written | {"version": version, "config": old}))
    assert NestFile.read(tmp_path).config == config(gallery)
    both = written | {"config": old | {"resolution": 32}}
    (tmp_path / "nest.json").write_text(json.dumps(both))
    with pytest.raises(StudyError, match="the field 'config': `size` is the old name of `resolu"):
        NestFile.read(tmp_path)


def test_the_seed_divides_the_classes_too(gallery: Path, tmp_path: Path) -> None:
    arguments = ["timm:test_resnet", "--gallery", str(gallery), "--data", DATA]
    arguments += ["--out", str(tmp_path / "n"), "--resolution", "32"]
    arguments += ["--no-pretrained", "--seed", "1"]
    done = CliRunner().invoke(app, arguments)
    assert "views of other training images" in str(done.exception)  # the gallery's seed is 0


def test_errors(gallery: Path, tmp_path: Path, trained: tuple[Nest, CrossTests]) -> None:
    with pytest.raises(StudyError, match="is no nest"):
        Nest.open(tmp_path)
    with pytest.raises(StudyError, match=r"cannot be nested; give the name of a timm model"):
        Nest.create(tmp_path / "n", config(gallery, model="query.onnx")).train()
    with pytest.raises(SearchSpaceError, match=r"did you mean 'test_resnet'"):
        Nest.create(tmp_path / "n", config(gallery, model="test_resnt")).train()
    with pytest.raises(PruningError, match="lack 100%"):
        Nest.create(tmp_path / "n", config(gallery, capacities=(0.5,))).train()
    save_model(
        timm_query_model("test_resnet", 6, resolution=32, pretrained=False),
        tmp_path / "m.safetensors",
    )
    with pytest.raises(StudyError, match="gives 6 dimensions, but the gallery"):
        Nest.create(tmp_path / "n", config(gallery, model=str(tmp_path / "m.safetensors"))).train()
    assert not (tmp_path / "n").exists()
    with pytest.raises(StudyError, match=r"must end in one of \.safetensors, \.onnx, \.pt2"):
        trained[0].write(0.6, tmp_path / "q.bin")
    with pytest.raises(CompatError, match="did you mean 'regression'"):
        Nest.create(tmp_path / "n", config(gallery, loss="regresion")).train()
    (tmp_path / "nest.json").write_text("{}")
    with pytest.raises(StudyError, match="cannot be read"):
        Nest.open(tmp_path)
    begun = json.loads((trained[0].path / "nest.json").read_text()) | {"gallery fingerprint": "f00"}
    (tmp_path / "nest.json").write_text(json.dumps(begun))
    with pytest.raises(StudyError, match="begun with a gallery of fingerprint f00, but"):
        _ = Nest.open(tmp_path).data


def test_a_model_that_ends_at_a_level_is_nested(gallery: Path, tmp_path: Path) -> None:
    training = TrainingConfig(epochs=1, batch=16, ema=0.5)
    given = config(gallery, levels=2, capacities=(0.5, 1.0), training=training)
    Nest.create(tmp_path, given).train()
    nest = Nest.open(tmp_path)
    assert nest.config.levels == 2
    whole, half = nest.extract(1.0), nest.extract(0.5)
    assert count_macs(half, 32) < 0.7 * count_macs(whole, 32)
    for model in (whole, half):
        assert model.origin is not None
        assert model.origin["timm"]["levels"] == ["layer1", "layer2"]
    with pytest.raises(StudyError, match="begun with levels = 2, not None"):
        Nest.create(tmp_path, given.model_copy(update={"levels": None}))
