"""A cut model is a plain file that gives the same bits back."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pruning import PruningError, cut, kept_channels, load_model, save_model, stages
from searchspaces import MBConvSpace, QueryModel
from searchspaces.projection import Projection


def outputs(model: Any, images: Any) -> Any:
    with torch.no_grad():
        return model.eval()(images)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "mobilenetv3_small_050",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "mobilevit_xxs",
        "regnety_002",
    ],
)
def test_outputs_are_bit_equal_after_a_reload(
    uncut: Any, tmp_path: Path, name: str, ratio: Any
) -> None:
    model = cut(uncut(name), dict.fromkeys(stages(uncut(name)), ratio))
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, model.resolution, model.resolution)
    assert torch.equal(outputs(again, images), outputs(model, images))
    assert not again.training
    assert list(tmp_path.iterdir()) == [tmp_path / "model.safetensors"]


def test_a_reloaded_model_can_be_cut_and_saved_again(uncut: Any, tmp_path: Path) -> None:
    once = cut(uncut("resnet10t"), {"layer3": 0.5})
    save_model(once, tmp_path / "once")
    twice = cut(load_model(tmp_path / "once"), {"layer4": 0.5})
    save_model(twice, tmp_path / "once")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(outputs(load_model(tmp_path / "once"), images), outputs(twice, images))


def test_networks_of_the_elastic_space_travel_too(tmp_path: Path) -> None:
    space = MBConvSpace(resolutions=(16,), se=True)
    model = space.build(space.sample(random.Random(0)), 8)
    pruned = cut(model, dict.fromkeys(stages(model), 0.5))
    save_model(pruned, tmp_path / "model")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(outputs(load_model(tmp_path / "model"), images), outputs(pruned, images))


def test_the_header_is_readable_json(uncut: Any, tmp_path: Path) -> None:
    save_model(cut(uncut("resnet10t"), {"layer4": 0.5}), tmp_path / "model")
    with safe_open(tmp_path / "model", framework="np") as file:
        recipe = json.loads(file.metadata()["querynas.model"])
    assert recipe["origin"]["timm"]["name"] == "resnet10t"
    changed = recipe["modules"]["backbone.network.layer4.0.conv1"]
    assert changed == {"out_channels": 256}


def test_the_header_says_which_channels_of_the_uncut_network_are_left(
    uncut: Any, tmp_path: Path
) -> None:
    whole = uncut("resnet10t")
    once = cut(whole, {"layer3": 0.5})
    save_model(once, tmp_path / "once")
    twice = cut(load_model(tmp_path / "once"), {"layer3": 0.5})
    save_model(twice, tmp_path / "twice")
    with safe_open(tmp_path / "twice", framework="np") as file:
        kept = json.loads(file.metadata()["querynas.model"])["kept"]
    assert kept == kept_channels(twice) == kept_channels(load_model(tmp_path / "twice"))
    name = "backbone.network.layer3.0.conv2"
    out, into = kept[name]["out"], kept[name]["in"]
    assert (len(out), len(into)) == (64, 64)
    expected = whole.get_submodule(name).weight[out][:, into]
    assert torch.equal(twice.get_submodule(name).weight, expected)
    assert kept["backbone.network.layer4.0.conv1"].keys() == {"in"}
    assert kept_channels(whole) == {}


def test_files_without_kept_channels_are_read(uncut: Any, tmp_path: Path) -> None:
    model = cut(uncut("resnet10t"), {"layer4": 0.5})
    save_model(model, tmp_path / "new")
    with safe_open(tmp_path / "new", framework="pt") as file:
        recipe = json.loads(file.metadata()["querynas.model"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del recipe["kept"]
    save_file(tensors, tmp_path / "old", metadata={"querynas.model": json.dumps(recipe)})
    again = load_model(tmp_path / "old")
    assert kept_channels(again) == {}
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(outputs(again, images), outputs(model, images))


def test_files_of_other_kinds_are_refused(uncut: Any, tmp_path: Path) -> None:
    with pytest.raises(PruningError, match=r"There is no file .*absent"):
        load_model(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(PruningError, match="text is not a readable safetensors file"):
        load_model(tmp_path / "text")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain")
    with pytest.raises(PruningError, match=r"plain has no 'querynas\.model' header"):
        load_model(tmp_path / "plain")
    origin = {"timm": {"name": "resnet10t", "dimension": 16, "resolution": 32}}
    header = {"querynas.model": json.dumps({"origin": origin, "modules": {}})}
    save_file({"x": torch.zeros(1)}, tmp_path / "stranger", metadata=header)
    with pytest.raises(PruningError, match="stranger and the network it names differ in"):
        load_model(tmp_path / "stranger")


def test_a_model_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    model = QueryModel(torch.nn.Flatten(), Projection(12, 4), resolution=2)
    with pytest.raises(PruningError, match="without an origin"):
        save_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
