"""Saved query models as anybody could have made them: opened, or refused in a sentence."""

import json
import random
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import VALUES, Case, assert_clean, mutated_bytes, mutated_json, put, says
from safetensors.torch import load_file, save

from pruning import PruningError, cut, load_model, removed_weights, save_model
from searchspaces import MBConvSpace, QueryModel, create_space, rebuild, timm_query_model

TIMM = "test_efficientnet"


@cache
def valid(kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], bytes]:
    """The header, the tensors and the bytes of a model that was cut."""
    torch.manual_seed(0)
    if kind == "timm":
        model = timm_query_model(TIMM, 8, resolution=32, pretrained=False)
    else:
        space = MBConvSpace(resolutions=(16,), se=True)
        model = space.build(space.sample(random.Random(0)), 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "valid.safetensors"
        save_model(cut(model, 0.5), path)
        return header_of(path), load_file(path), path.read_bytes()


def used(path: Path) -> None:
    """Open a model and do with it what others of our functions do; written, it is the same file."""
    model = load_model(path)
    assert all(each.isfinite().all() for each in model.state_dict().values())
    model(torch.rand(2, 3, model.resolution, model.resolution))
    again = path.with_name("again.safetensors")
    save_model(model, again)
    assert says(header_of(path), header_of(again)), header_of(path)
    assert model.origin is not None
    removed_weights(rebuild(model.origin), model)


def header_of(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()["querynas.model"])
    return header


def write(path: Path, header: str, tensors: dict[str, torch.Tensor]) -> None:
    put(path, save(tensors, metadata={"querynas.model": header}))


def of_bytes(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "model.safetensors"
    content = valid("space")[2]
    for what, changed in mutated_bytes(content, seed, count):
        put(path, changed)
        yield Case(what, path.name, lambda: used(path))


def of_headers(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "model.safetensors"
    for kind in ("timm", "space"):
        recipe, tensors, _ = valid(kind)
        modules = dict(list(recipe["modules"].items())[:8])
        kept = dict(list(recipe["kept"].items())[:8])
        for part in ({}, {"modules": modules, "kept": kept}):
            for what, text in mutated_json({**recipe, **part}, seed, count // 4):
                try:
                    write(path, text, tensors)
                except UnicodeEncodeError:
                    continue
                yield Case(f"{kind} {what}", path.name, lambda: used(path))


def of_envelopes(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """The JSON around names, shapes and places of tensors, which safetensors itself reads."""
    path = folder / "model.safetensors"
    content = valid("space")[2]
    size = int.from_bytes(content[:8], "little")
    for what, text in mutated_json(json.loads(content[8 : 8 + size]), seed, count):
        header = text.encode("utf-8", "surrogatepass")
        put(path, len(header).to_bytes(8, "little") + header + content[8 + size :])
        yield Case(what, path.name, lambda: used(path))


def of_tensors(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "model.safetensors"
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        recipe, tensors, _ = valid(draw.choice(("timm", "space")))
        tensors = dict(tensors)
        name = draw.choice(sorted(tensors))
        tensor = tensors.pop(name)
        what, changed = changed_tensor(tensor, draw)
        if changed is not None:
            tensors[name] = changed.contiguous()
        if what == "renamed":
            tensors[f"{name}.x"] = tensor
        write(path, json.dumps(recipe), tensors)
        yield Case(f"{name} {what}", path.name, lambda: used(path))


def changed_tensor(tensor: torch.Tensor, draw: random.Random) -> tuple[str, torch.Tensor | None]:
    whole = torch.atleast_1d(tensor)
    match draw.randrange(10):
        case 0:
            return "gone", None
        case 1:
            return "renamed", None
        case 2:
            return "not finite", tensor * draw.choice((torch.nan, torch.inf))
        case 3:
            return "double", tensor.double()
        case 4:
            return "of no channels", whole[:0]
        case 5:
            return "twice as long", torch.cat([whole, whole])
        case 6:
            return "one shorter", whole[1:]
        case 7:
            return "turned", tensor.movedim(0, -1) if tensor.ndim > 1 else whole[None]
        case 8:
            return "of one value", torch.zeros(())
        case _:
            return "enormous", tensor * 1e38


def of_origins(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Networks that the tensors are not of, and absurd ones."""
    path = folder / "model.safetensors"
    recipe, tensors, _ = valid("space")
    options = recipe["origin"]["space"]["options"]
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        origin = json.loads(json.dumps(recipe["origin"]))
        match draw.randrange(4):
            case 0:
                name = draw.choice(("vit_giant_patch14_224", "resnet18", "eva02_tiny_patch14_224"))
                timm = {"name": name, "dimension": 8, "resolution": 32, "pooling": "avg"}
                timm[draw.choice(sorted(timm))] = draw.choice((*VALUES, 1 << 15, 1 << 16, 1024))
                origin = {"timm": timm}
            case 1:
                origin["space"]["options"][draw.choice(sorted(options))] = draw.choice(
                    (*VALUES, [99], [8, 99999 * 8], [8] * 1000, [1 << 40], [2.5], [[8]], [True])
                )
            case 2:
                stage = origin["space"]["options"]["stages"][0]
                stage[draw.choice(sorted(stage))] = draw.choice(
                    (*VALUES, [99], [8 << 20], [1000], [1e300], [1 << 62], ["relu", "relu"])
                )
            case 3:
                origin["space"]["name"] = draw.choice(
                    ("pruned", "timm", "union", "vit", "resnet", "shufflenet", "os", "")
                )
        write(path, json.dumps({**recipe, "origin": origin}), tensors)
        yield Case(f"origin {json.dumps(origin)[:300]}", path.name, lambda: used(path))


KINDS = {
    "models: bytes": of_bytes,
    "models: headers": of_headers,
    "models: envelopes": of_envelopes,
    "models: tensors": of_tensors,
    "models: origins": of_origins,
}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_models(kind: str, tmp_path: Path) -> None:
    assert_clean(KINDS[kind], tmp_path, count=60)


def saved(model: QueryModel, path: Path, **changes: Any) -> Path:
    save_model(model, path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["querynas.model"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    write(path, json.dumps({**recipe, **changes}), tensors)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PruningError, match=path.name) as caught:
        load_model(path)
    assert len(str(caught.value)) <= 300
    return str(caught.value)


@pytest.fixture(scope="module")
def small() -> QueryModel:
    space = create_space("mbconv", resolutions=[16])
    return space.build(space.sample(random.Random(1)), 8)


@pytest.mark.parametrize(
    ("module", "attribute", "value"),
    [
        ("backbone.stem.conv", "padding", [1000, 1000]),
        ("backbone.stem.conv", "out_channels", 10**6),
        ("backbone.stem.conv", "out_channels", True),
        ("backbone.stem.conv", "forward", 3),
        ("backbone.stem.conv", "__class__", 3),
        ("backbone.stem.norm", "eps", 5),
        ("", "resolution", 8),
        ("no.such", "out_channels", 8),
    ],
)
def test_only_what_a_cut_changes_is_set(
    small: QueryModel, tmp_path: Path, module: str, attribute: str, value: Any
) -> None:
    path = saved(small, tmp_path / "m.safetensors", modules={module: {attribute: value}})
    assert f"sets '{module}.{attribute}'" in refusal(path)


def test_widths_that_do_not_fit_each_other_are_noticed(small: QueryModel, tmp_path: Path) -> None:
    depthwise = "backbone.stages.0.0.depthwise.conv"
    path = saved(small, tmp_path / "m.safetensors", modules={depthwise: {"groups": 1}})
    assert "does not run" in refusal(path)


def test_a_later_version_is_named(small: QueryModel, tmp_path: Path) -> None:
    path = saved(small, tmp_path / "m.safetensors", version=99)
    assert "of version 99, and this querynas reads up to 2: update querynas" in refusal(path)
    path = saved(small, tmp_path / "m.safetensors", version=0)
    assert load_model(path).dimension == 8


def test_a_giant_network_in_a_small_file_takes_no_memory(small: QueryModel, tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timm = {"name": "eva02_enormous_patch14_clip_224", "dimension": 8, "resolution": 224}
    path = saved(small, tmp_path / "m.safetensors", origin={"timm": timm})
    assert "differ in" in refusal(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500 * 1024  # KiB; the network has 4.4 billion weights
