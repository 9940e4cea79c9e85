"""Every way to name a gallery model."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from compat.data.preprocessing import Preprocessing
from compat.embedding import embed
from compat.errors import CompatError
from compat.gallery import load_gallery_model, save_gallery_model
from compat.gallery.models import trained_network

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def normalised(pixels: Any, mean: Any, std: Any) -> Any:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def test_a_random_start_must_be_asked_for_and_is_always_the_same() -> None:
    spec = "timm:resnet10t,pretrained=false,resolution=32"
    model = load_gallery_model(spec)
    assert (model.dimension, model.preprocessing.resolution, model.spec) == (512, 32, spec)
    again = load_gallery_model(spec)
    assert model.digest == again.digest
    np.testing.assert_array_equal(model.embed(PIXELS), again.embed(PIXELS))


@pytest.mark.parametrize("kind", ["torch", "wrapped", "safetensors"])
def test_a_checkpoint_gives_the_models_own_features(tmp_path: Path, kind: Any) -> None:
    torch.manual_seed(1)
    network = timm.create_model("resnet10t", pretrained=False, num_classes=7).eval()
    weights = network.state_dict()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        wrapped = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, path)
    else:
        torch.save(weights, path)
    model = load_gallery_model(f"timm:resnet10t,checkpoint={path},resolution=32")
    config = timm.data.resolve_model_data_config(network)
    with torch.inference_mode():
        images = normalised(PIXELS, config["mean"], config["std"])
        expected = network.forward_head(network.forward_features(images), pre_logits=True)
    np.testing.assert_allclose(model.embed(PIXELS), expected.numpy(), atol=1e-4)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    weights = timm.create_model("resnet10t", pretrained=False).state_dict()
    path = tmp_path / "w.pth"
    spec = f"timm:resnet10t,checkpoint={path}"
    with pytest.raises(CompatError, match="There is no file"):
        load_gallery_model(spec)
    torch.save({name: value for name, value in weights.items() if name != "bn1.bias"}, path)
    with pytest.raises(CompatError, match=r"w\.pth has no tensor 'bn1.bias'"):
        load_gallery_model(spec)
    torch.save(weights | {"bn1.bias": torch.zeros(3)}, path)
    with pytest.raises(CompatError, match=r"bias' of .*w\.pth has shape \(3,\), expected \(64,\)"):
        load_gallery_model(spec)
    torch.save(weights | {"extra.bias": torch.zeros(3)}, path)
    with pytest.raises(CompatError, match=r"a tensor 'extra\.bias' that the network lacks"):
        load_gallery_model(spec)
    path.write_text("text")
    with pytest.raises(CompatError, match="cannot be read as plain tensors"):
        load_gallery_model(spec)


def test_pretrained_weights_without_a_network_are_an_error_not_a_random_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CompatError) as caught:
        load_gallery_model("timm:resnet18")
    complaint = str(caught.value)
    assert complaint.startswith("The pretrained weights of timm:resnet18 cannot be had (")
    assert "checkpoint=FILE, or say pretrained=false" in complaint
    with pytest.raises(CompatError, match="No pretrained weights exist"):
        load_gallery_model("timm:botnet50ts_256")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet81", "no model 'resnet81'.*did you mean 'resnet18'"),
        ("timm:resnet18,resolutions=3", r"unknown field 'resolutions'.*did you mean 'resolution'"),
        ("timm:resnet18,pretrained=perhaps", "'pretrained' is 'perhaps'"),
        ("timm:resnet18,pretrained", "'pretrained' is no key=value"),
        ("timm:resnet10t,pretrained=false,resolution=big", "'resolution' is 'big'"),
        (
            "timm:vit_tiny_patch16_224,pretrained=false,resolution=32",
            "cannot embed images of 32 px",
        ),
        ("resnet18", "names no gallery model, expected timm:NAME"),
        ("gone.safetensors", "There is no file"),
        ("gone.onnx", "There is no file"),
        ("no_such_module:make", "Cannot import 'no_such_module'.*install it"),
        ("timm:test_resnet,size=32,resolution=32", "`size` is the old name of `resolution`, and"),
        ("tinynet:mak", r"no function 'mak' \(did you mean 'make'"),
        ("tinynet:make,depth=3", "does not take the options"),
        ("tinynet:number", "returned a int, expected a torch.nn.Module"),
        ("tinynet:maps", r"maps 2 images to shape \(2, 4, 224, 224\)"),
        ("tinynet:infinite", "embedding of image 0 is not finite"),
    ],
)
def test_wrong_specs_are_explained(tinynet: str, spec: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        load_gallery_model(spec)


def test_a_spec_may_name_the_resolution_as_it_once_did() -> None:
    old, new = (
        load_gallery_model(f"timm:test_resnet,pretrained=false,{name}=32")
        for name in ("size", "resolution")
    )
    assert (old.preprocessing, old.digest) == (new.preprocessing, new.digest)


def test_a_factory_may_name_its_resolution_as_it_once_did(
    tinynet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(tinynet.partition(":")[0])
    make = module.make

    def of_before(**options: str) -> Any:
        network = make(**options)
        network.preprocessing = {"size": network.preprocessing["resolution"]}
        return network

    monkeypatch.setattr(module, "make", of_before)
    assert load_gallery_model(tinynet).preprocessing.resolution == 16


def test_a_factory_gets_its_options_and_states_its_preprocessing(tinynet: str) -> None:
    model = load_gallery_model(f"{tinynet},width=9")
    assert model.dimension == 9
    assert (model.preprocessing.resolution, model.preprocessing.fit) == (16, "squash")
    assert model.preprocessing.mean == (0, 0, 0)
    with pytest.raises(CompatError, match=r"takes images of shape \(16, 16, 3\)"):
        model.embed(PIXELS)


def test_a_trained_file_describes_itself(tmp_path: Path) -> None:
    preprocessing = Preprocessing(resolution=32, fit="squash", mean=(0.4, 0.5, 0.6))
    torch.manual_seed(0)
    network = trained_network("timm:resnet10t", 12, preprocessing)
    for _ in range(2):
        network(torch.rand(4, 3, 32, 32))  # moves the running statistics
    path = tmp_path / "model.safetensors"
    weights = torch.rand(2, 12)
    save_gallery_model(
        network,
        path,
        backbone="timm:resnet10t",
        dimension=12,
        preprocessing=preprocessing,
        classifier=weights,
        classes=["ox", "ass"],
    )
    model = load_gallery_model(str(path))
    np.testing.assert_array_equal(model.classifier["ass"], weights[1])
    assert (model.dimension, model.preprocessing) == (12, preprocessing)
    np.testing.assert_array_equal(model.embed(PIXELS), embed(network, PIXELS, description=None))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]

    shutil.copyfile(path, tmp_path / "cut.safetensors")
    with (tmp_path / "cut.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CompatError, match=r"cut\.safetensors is not a readable"):
        load_gallery_model(str(tmp_path / "cut.safetensors"))
    save_file(network.state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(CompatError, match="does not describe its network"):
        load_gallery_model(str(tmp_path / "plain.safetensors"))


@pytest.mark.parametrize("batch", ["dynamic", "fixed"])
def test_an_onnx_model_equals_the_torch_one(tmp_path: Path, batch: Any) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        network,
        (torch.rand(2, 3, 32, 32),),
        path,
        dynamo=False,
        input_names=["images"],
        dynamic_axes={"images": {0: "batch"}} if batch == "dynamic" else None,
    )
    model = load_gallery_model(str(path))
    assert (model.dimension, model.preprocessing.resolution) == (8, 32)
    expected = embed(network, PIXELS, description=None)
    np.testing.assert_allclose(model.embed(PIXELS, batch=3), expected, atol=1e-5)


def test_an_onnx_model_of_any_size_is_refused(tmp_path: Path) -> None:
    torch.onnx.export(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        (torch.rand(2, 3, 32, 32),),
        tmp_path / "net.onnx",
        dynamo=False,
        input_names=["images"],
        dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}},
    )
    with pytest.raises(CompatError, match="export it with a fixed resolution"):
        load_gallery_model(str(tmp_path / "net.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(CompatError, match=r"text\.onnx is no ONNX file"):
        load_gallery_model(str(tmp_path / "text.onnx"))


def test_embedding_leaves_the_mode_alone_and_batches_do_not_matter() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    ).train()
    network[1].eval()
    whole = embed(network, PIXELS, description=None)
    np.testing.assert_allclose(embed(network, PIXELS, batch=2, description=None), whole, atol=1e-6)
    assert [module.training for module in network] == [True, False, True, True]
    with torch.inference_mode():
        images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
        np.testing.assert_allclose(network.eval()(images).numpy(), whole, atol=1e-6)


def test_only_some_images_are_embedded_in_the_order_asked_for() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    everything = embed(network, PIXELS, description=None)
    rows = np.array([4, 0, 2])
    some = embed(network, PIXELS, rows=rows, batch=2, description=None)
    np.testing.assert_allclose(some, everything[rows], atol=1e-6)
    with pytest.raises(CompatError, match="no images"):
        embed(network, PIXELS, rows=rows[:0], description=None)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PIXELS.astype(np.float32), "type float32, expected uint8"),
        (PIXELS[0], r"shape \(32, 32, 3\)"),
        (PIXELS[:0], "no images to embed"),
    ],
)
def test_pixels_that_are_none_are_named(pixels: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        embed(torch.nn.Flatten(), pixels)
