"""Texts that name data and gallery models, and the files that they name."""

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import VALUES, Case, assert_clean, hostile_pickle, mutated_bytes, mutated_json, put
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file

from compat.data import open_data
from compat.data.preprocessing import Preprocessing
from compat.errors import CompatError
from compat.gallery import load_gallery_model, save_gallery_model
from compat.gallery.models import trained_network

ARCH = "timm:test_efficientnet"
RESOLUTION = 32
DATA_SPECS = (
    "facades:classes=2,images=2,size=16,seed=0",
    "facades",
    "omniglot:root=PLACE,download=false",
    "cub200:root=PLACE",
    "inshop:root=PLACE",
    "cifar10:root=PLACE",
    "revisitop:gnd=PLACE/gnd.pkl,images=PLACE",
    "PLACE/images",
    "PLACE/images,queries=PLACE/images",
    "PLACE/list.csv",
)
MODEL_SPECS = (
    f"{ARCH},pretrained=false,resolution={RESOLUTION}",
    f"{ARCH},checkpoint=PLACE/w.pth,resolution={RESOLUTION}",
    "PLACE/model.safetensors",
    "PLACE/model.onnx",
    "no_such_module:make,width=3",
)


def mutated_text(text: str, draw: random.Random) -> str:
    """A text with parts lost, doubled, swapped, or in place of which stands something else."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(len(text) + 1)
        end = place + draw.randrange(6)
        other = draw.choice(
            (*VALUES, "=", ",", ":", ",resolution=99999", ",resolution=0", "9" * 50, "\0", "~")
        )
        text = draw.choice(
            (
                text[:place] + text[end:],
                text[:place] + str(other)[:300] + text[end:],
                text[:place] + text[place:end] * 2 + text[end:],
                text.replace("=", f"={other}"[:300], 1),
            )
        )
    return text


def parts(spec: str) -> tuple[str, ...]:
    """Of which a refusal has to name one: the whole, or a field or a value of it."""
    said = str(CompatError(spec))
    fields = re.split(r"[:,=]", said)
    paths = [form for each in fields if len(each) > 5 for form in (each, os.path.normpath(each))]
    ends = [end for path in paths for end in (path.lstrip("/")[:20], path[-20:])]
    return (said[:40], *(f"'{each}'" for each in fields), *ends)


def shown(spec: str, folder: Path) -> None:
    """Open data and load an image of every class, as large as the text asks."""
    images = open_data(spec, root=folder)
    side = re.search(r"^facades:(?:.*,)?size=(\d+)", spec)
    for index in range(min(3, len(images))):
        size = images.source.load(index).size
        assert not side or size == (int(side[1]),) * 2, size


def embedded(spec: str) -> None:
    """Open a gallery model and embed two images."""
    model = load_gallery_model(spec)
    size = model.preprocessing.resolution
    found = model.embed(np.zeros((2, size, size, 3), np.uint8))
    assert found.shape == (2, model.dimension)
    assert np.isfinite(found).all()


def data_specs(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Texts that name data."""
    for name in ("a.png", "b.png"):
        (folder / "images" / "wren").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "images" / "wren" / name)
    (folder / "list.csv").write_text("path,label\nimages/wren/a.png,wren\n")
    draw = random.Random(seed)
    for number in range(count):
        text = DATA_SPECS[number % len(DATA_SPECS)].replace("PLACE", str(folder))
        spec = mutated_text(text, draw)
        yield Case(f"{spec[:80]!r}", parts(spec), lambda spec=spec: shown(spec, folder))


def model_specs(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Texts that name gallery models."""
    put(folder / "model.onnx", onnx_model())
    trained(folder / "model.safetensors")
    (folder / "w.pth").write_bytes(hostile_pickle(folder / "ran"))
    draw = random.Random(seed)
    for number in range(count):
        text = MODEL_SPECS[number % len(MODEL_SPECS)].replace("PLACE", str(folder))
        spec = mutated_text(text, draw)
        yield Case(f"{spec[:80]!r}", parts(spec), lambda spec=spec: embedded(spec))


def trained(path: Path) -> dict[str, str]:
    """Write a gallery model as `gallery train` does; return what its header says."""
    preprocessing = Preprocessing(resolution=RESOLUTION)
    save_gallery_model(
        trained_network(ARCH, 8, preprocessing),
        path,
        backbone=ARCH,
        dimension=8,
        preprocessing=preprocessing,
        classifier=torch.ones(2, 8),
        classes=["a", "b"],
    )
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header: dict[str, str] = file.metadata()
    return header


def trained_files(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Files of `gallery train`: their bytes, and what their header says."""
    path = folder / "model.safetensors"
    header = trained(path)
    whole, tensors = path.read_bytes(), load_file(path)

    def case(what: str) -> Case:
        return Case(what, path.name, lambda: embedded(str(path)))

    for what, content in mutated_bytes(whole, seed, count // 2):
        put(path, content)
        yield case(what)
    fields = header | {"preprocessing": json.loads(header["preprocessing"])}
    for what, text in mutated_json(fields, seed, count // 2):
        try:
            changed = json.loads(text)
        except (ValueError, RecursionError):
            changed = {"format": header["format"], "preprocessing": text}
        if not isinstance(changed, dict):
            continue
        words = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in changed.items()}
        try:
            save_file(tensors, path, metadata=words)
        except Exception:  # what safetensors does not write, nobody can hand in
            continue
        yield case(what)


def onnx_model(batch: Any = "batch", size: Any = RESOLUTION, width: int = 4) -> bytes:
    """A mean over the image, and a linear layer."""
    weight = np.random.default_rng(0).standard_normal((3, width)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["vectors"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def onnx_files(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged ONNX models."""
    path = folder / "model.onnx"
    for what, content in mutated_bytes(onnx_model(), seed, count):
        put(path, content)
        yield Case(what, path.name, lambda: embedded(str(path)))


def listings(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """The text files in which published sets list their images."""
    birds, clothes = folder / "CUB_200_2011", folder / "clothes"
    files = {
        birds / "classes.txt": "1 auk\n2 owl\n",
        birds / "images.txt": "1 auk/1.jpg\n2 owl/1.jpg\n",
        birds / "image_class_labels.txt": "1 1\n2 2\n",
        clothes / "list_eval_partition.txt": "2\nname item part\nimg/a a train\nimg/b b query\n",
        folder / "cifar-10-batches-bin" / "batches.meta.txt": "auk owl\n",
    }
    (clothes / "img").mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        record = bytes([1]) + bytes(3072)
        put(folder / "cifar-10-batches-bin" / f"{name}.bin", record)
    for file, text in files.items():
        name = {"clothes": f"inshop:root={clothes}", "CUB_200_2011": f"cub200:root={folder}"}.get(
            file.parent.name, f"cifar10:root={folder}"
        )
        for what, content in mutated_bytes(text.encode(), seed, count // len(files)):
            put(file, content)
            names = (file.name, str(file.parent))
            yield Case(f"{file.name} {what}", names, lambda name=name: open_data(name))
        file.write_text(text)


KINDS = {
    "data specs": data_specs,
    "published listings": listings,
    "model specs": model_specs,
    "trained gallery models": trained_files,
    "ONNX gallery models": onnx_files,
}


def test_data_specs(tmp_path: Path) -> None:
    assert assert_clean(data_specs, tmp_path, count=600).outcomes["refused"] > 300


def test_published_listings(tmp_path: Path) -> None:
    assert assert_clean(listings, tmp_path, count=500).outcomes["refused"] > 100


def test_model_specs(tmp_path: Path) -> None:
    assert assert_clean(model_specs, tmp_path, count=60).outcomes["refused"] > 20
    assert not (tmp_path / "ran").exists()


def test_trained_gallery_models(tmp_path: Path) -> None:
    assert assert_clean(trained_files, tmp_path, count=80).outcomes["refused"] > 30


def test_onnx_gallery_models(tmp_path: Path) -> None:
    done = assert_clean(onnx_files, tmp_path, count=120)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 40


@given(st.text(max_size=40))
def test_any_text_is_data_or_one_sentence(text: str) -> None:
    with pytest.raises(CompatError) as caught:
        open_data(f"nowhere/{text}")
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("facades:size=99999", "'size' is '99999'"),
        ("facades:classes=1000000,images=1000000", "more than 1,000,000"),
        ("facades:seed=-1", "'seed' is '-1'"),
        ("facades:self=1", "unknown field 'self'"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_data_specs_out_of_bounds(spec: str, sentence: str) -> None:
    with pytest.raises(CompatError, match=sentence):
        open_data(spec)


def test_a_module_whose_name_no_file_can_have() -> None:
    with pytest.raises(CompatError, match="Cannot import 'nnnn"):
        load_gallery_model(f"{'n' * 300}:make")


@pytest.mark.parametrize("resolution", [99999, 0, -3])
def test_resolutions_out_of_bounds(resolution: int) -> None:
    with pytest.raises(CompatError, match="'resolution' is"):
        load_gallery_model(f"{ARCH},pretrained=false,resolution={resolution}")


@pytest.mark.parametrize("sizes", [{"size": 99999}, {"batch": 10**6}])
def test_onnx_models_out_of_bounds(tmp_path: Path, sizes: dict[str, int]) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_model(**sizes))
    with pytest.raises(CompatError, match="expected one float input"):
        load_gallery_model(str(tmp_path / "m.onnx"))


def test_a_small_file_cannot_ask_for_a_large_network(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = trained(path) | {"backbone": "timm:vit_giant_patch14_224"}
    save_file(load_file(path), path, metadata=header)
    with pytest.raises(CompatError, match=r"holds [\d,]+ numbers, but its backbone .* has 1,"):
        load_gallery_model(str(path))


def test_a_model_file_may_name_its_backbone_in_one_way_only(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = trained(path)
    save_file(load_file(path), path, metadata=header | {"arch": header["backbone"]})
    with pytest.raises(CompatError, match=r"model\.safetensors: `arch` is the old name of `backb"):
        load_gallery_model(str(path))


def test_a_later_version_of_a_model_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = trained(path)
    assert header["version"] == "2"
    save_file(load_file(path), path, metadata=header | {"version": "3"})
    with pytest.raises(CompatError, match=r"of version 3, and .* update querynas"):
        load_gallery_model(str(path))
    del header["version"]  # as files were written before
    save_file(load_file(path), path, metadata=header)
    assert load_gallery_model(str(path)).dimension == 8
