"""Exported models with their cards as anybody could have made them."""

import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mutations import Case, Cases, assert_clean, mutated_bytes, mutated_json, put, says
from onnx import TensorProto, helper, numpy_helper

from nas.deployment.card import Card, card_path
from nas.deployment.formats import FORMATS
from nas.deployment.model_file import load_deployed
from nas.deployment.profiles import profile
from nas.errors import StudyError
from searchspaces import QueryModel, create_space

SIDE, DIMENSION = 16, 8
CARD: dict[str, Any] = {
    "version": 1,
    "querynas": "0.1.0",
    "run": "runs/a",
    "trial": 3,
    "format": "onnx",
    "sha256": "",
    "architecture": {"space": "mbconv", "params": {"resolution": SIDE}},
    "route": "slices",
    "fidelity": "shared weights",
    "macs": 1000,
    "parameters": 100,
    "latency": {"pytorch": 0.1, "onnxruntime": None},
    "input": {"resolution": SIDE, "fit": "crop"},
    "dimension": DIMENSION,
    "gallery": {"path": "g", "fingerprint": "f", "model": None, "metric": "cosine"},
    "data": {"spec": "facades", "split": {"val": 0.2, "test": 0.2, "seed": 0}},
    "validation": {"cross_test": 0.5, "interval": [0.4, 0.6]},
    "scores": {
        test: {"map": 0.5, "interval": [0.4, 0.6], "recall": {"1": 0.5}}
        for test in ("self_test", "cross_test", "paragon")
    },
}


@cache
def model() -> QueryModel:
    torch.manual_seed(0)
    space = create_space(
        "mbconv", resolutions=[SIDE], stages=[{"widths": [8], "depths": [1]}], head_widths=[16]
    )
    return space.build(space.sample(random.Random(0)), DIMENSION).eval()


@cache
def exported(format: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"valid{FORMATS[format].suffix}"
        FORMATS[format].write(path, model())
        return path.read_bytes()


def carded(path: Path, content: bytes, card: dict[str, Any] | None = None) -> None:
    put(path, content)
    digest = hashlib.sha256(content).hexdigest()
    put(card_path(path), json.dumps({**(card or CARD), "sha256": digest}).encode())


def embedded(path: Path) -> None:
    deployed = load_deployed(path)
    written = json.loads(card_path(path).read_bytes())
    assert says(written, deployed.card.model_dump(mode="json")), written
    side = deployed.card.input.resolution
    found = deployed.embed(np.zeros((3, side, side, 3), np.uint8))
    assert found.shape == (3, deployed.card.dimension)
    assert np.isfinite(found).all()


def of_cards(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "model.safetensors"
    content = exported("safetensors")
    carded(path, content)
    valid = json.loads(card_path(path).read_text())
    for what, text in mutated_json(valid, seed, count // 2):
        put(card_path(path), text.encode("utf-8", "surrogatepass"))
        yield Case(what, path.name, lambda: embedded(path))
    for what, changed in mutated_bytes(json.dumps(valid).encode(), seed, count // 2):
        put(card_path(path), changed)
        yield Case(what, path.name, lambda: embedded(path))


def of_files(format: Any) -> Cases:
    def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
        path = folder / f"model{FORMATS[format].suffix}"
        for what, changed in mutated_bytes(exported(format), seed, count):
            carded(path, changed)
            yield Case(what, path.name, lambda: embedded(path))

    return cases


def of_graphs(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Well-formed ONNX files: nodes, attributes, weights, shapes and ends of the graph changed."""
    path = folder / "model.onnx"
    content = exported("onnx")
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        found = onnx.load_model_from_string(content)
        what = draw.choice(CHANGES)(found, draw)
        carded(path, found.SerializeToString())
        yield Case(f"{what} {number}", path.name, lambda: embedded(path))


def a_node_gone(found: onnx.ModelProto, draw: random.Random) -> str:
    del found.graph.node[draw.randrange(len(found.graph.node))]
    return "a node gone"


def another_operator(found: onnx.ModelProto, draw: random.Random) -> str:
    node = draw.choice(found.graph.node)
    node.op_type = draw.choice(("Relu", "Loop", "Nothing", "Tile", "ConstantOfShape", "Gather", ""))
    node.domain = draw.choice(("", "", "", "com.microsoft", "evil"))
    return f"operator {node.op_type}"


def other_numbers(found: onnx.ModelProto, draw: random.Random) -> str:
    nodes = [node for node in found.graph.node if node.attribute]
    attribute = draw.choice(draw.choice(nodes).attribute)
    value = draw.choice((-1, 0, 3, 10**6, 2**40, 2**62))
    attribute.i = value
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = value
    return f"{attribute.name} = {value}"


def another_weight(found: onnx.ModelProto, draw: random.Random) -> str:
    tensor = draw.choice(found.graph.initializer)
    match draw.randrange(5):
        case 0:
            tensor.dims[:] = [draw.choice((0, -1, 2**40, 7))]
        case 1:
            tensor.raw_data = b"\0" * 7
        case 2:
            tensor.data_type = draw.choice((0, 2, 8, 16, 99))
        case 3:
            odd = np.full([abs(each) for each in tensor.dims], np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(odd, tensor.name))
        case 4:
            tensor.data_location = TensorProto.EXTERNAL
            where = draw.choice(("/etc/passwd", "../../x", "/dev/zero", "model.onnx"))
            tensor.external_data.add(key="location", value=where)
            tensor.ClearField("raw_data")
    return f"weight {tensor.name[:20]}"


def other_ends(found: onnx.ModelProto, draw: random.Random) -> str:
    end = draw.choice((found.graph.input, found.graph.output))
    match draw.randrange(4):
        case 0:
            del end[:]
        case 1:
            end.add().CopyFrom(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
        case 2:
            shape = end[0].type.tensor_type.shape
            place = draw.randrange(len(shape.dim))
            shape.dim[place].dim_value = draw.choice((-1, 0, 1, 7, 99999, 2**40))
        case 3:
            end[0].type.tensor_type.elem_type = draw.choice((0, 2, 7, 8, 16))
    return "ends"


def a_bomb(found: onnx.ModelProto, draw: random.Random) -> str:
    """Ask for a tensor of many GB on the way, or loop without end."""
    graph = found.graph
    last = graph.output[0].name
    size = draw.choice((2**31, 2**33, 2**36, 2**50))
    shape = numpy_helper.from_array(np.array([size], np.int64), "bomb_shape")
    graph.initializer.append(shape)
    if draw.random() < 0.5:
        graph.node.append(helper.make_node("ConstantOfShape", ["bomb_shape"], ["bomb"]))
        graph.node.append(helper.make_node("ReduceSum", ["bomb"], ["bomb_sum"], keepdims=0))
        added = "bomb_sum"
    else:
        flag = numpy_helper.from_array(np.array(True), "bomb_flag")
        zero = numpy_helper.from_array(np.array(0, np.float32), "bomb_zero")
        count = numpy_helper.from_array(np.array(2**62, np.int64), "bomb_count")
        graph.initializer.extend([flag, zero, count])
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["c"], ["c_out"]),
                helper.make_node("Add", ["v", "v"], ["v_out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v", TensorProto.FLOAT, []),
            ],
            [
                helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v_out", TensorProto.FLOAT, []),
            ],
        )
        graph.node.append(
            helper.make_node(
                "Loop", ["bomb_count", "bomb_flag", "bomb_zero"], ["bomb_sum"], body=body
            )
        )
        added = "bomb_sum"
    graph.node.append(helper.make_node("Add", [last, added], ["exploded"]))
    graph.output[0].name = "exploded"
    return "a bomb"


CHANGES: list[Callable[[onnx.ModelProto, random.Random], str]] = [
    a_node_gone,
    another_operator,
    other_numbers,
    another_weight,
    other_ends,
]


def of_bombs(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "model.onnx"
    content = exported("onnx")
    for number in range(count):
        found = onnx.load_model_from_string(content)
        a_bomb(found, random.Random(f"{seed} {number}"))
        carded(path, found.SerializeToString())
        yield Case(f"a bomb {number}", path.name, lambda: embedded(path))


def of_profiles(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "model.onnx"
    for what, changed in mutated_bytes(exported("onnx"), seed, count):
        put(path, changed)
        yield Case(what, path.name, lambda: profile(str(path)))


KINDS: dict[str, Cases] = {
    "exports: cards": of_cards,
    "exports: safetensors": of_files("safetensors"),
    "exports: onnx": of_files("onnx"),
    "exports: onnx graphs": of_graphs,
    "exports: pt2": of_files("torch-export"),
    "exports: profiles of onnx": of_profiles,
}
COUNTS = {"exports: cards": 150, "exports: safetensors": 40, "exports: pt2": 40}


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchspaces.support.onnx_files._SECONDS", 3)


@pytest.mark.parametrize("kind", KINDS)
def test_exports(kind: str, tmp_path: Path) -> None:
    assert_clean(KINDS[kind], tmp_path, count=COUNTS.get(kind, 12))


def test_a_file_that_asks_for_any_memory_or_time_is_refused(tmp_path: Path) -> None:
    assert_clean(of_bombs, tmp_path, count=2)


def test_the_valid_ones_open(tmp_path: Path) -> None:
    for format in ("onnx", "safetensors"):
        path = tmp_path / f"model{FORMATS[format].suffix}"
        carded(path, exported(format))
        embedded(path)
    assert Card.model_validate(CARD).version == 1


def test_code_in_a_program_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symbolic expression of a program is evaluated by torch.export.load; ours loads none."""
    path = tmp_path / "model.pt2"
    carded(path, exported("torch-export"))

    def load(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("torch.export.load", load)
    for call in (embedded, lambda path: profile(str(path))):
        with pytest.raises(StudyError, match=r"model\.pt2"):
            call(path)
