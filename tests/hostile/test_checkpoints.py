"""Weights of others, and shared weights, as anybody could have made them."""

import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mutations import VALUES, Case, Cases, assert_clean, hostile_pickle, mutated_bytes, put
from safetensors.torch import save

from compat.errors import CompatError
from searchspaces import SearchSpaceError, timm_query_model
from searchspaces.checkpoint import load_checkpoint

NAME = "test_resnet"  # timm's smallest network
State = dict[str, Any]


@cache
def state() -> State:
    torch.manual_seed(0)
    return dict(timm.create_model(NAME, num_classes=7).state_dict())


@cache
def network() -> torch.nn.Module:
    return timm.create_model(NAME, num_classes=0)


def loaded(path: Path) -> None:
    load_checkpoint(network(), path, error=CompatError)
    assert all(each.isfinite().all() for each in network().state_dict().values())
    with torch.no_grad():
        network().eval()(torch.rand(1, 3, 32, 32))


def saved(content: Any, *, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def of_bytes(suffix: str, write: Callable[[], bytes]) -> Cases:
    def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
        path = folder / f"weights{suffix}"
        for what, changed in mutated_bytes(write(), seed, count):
            put(path, changed)
            yield Case(what, path.name, lambda: loaded(path))

    return cases


def of_states(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Well-formed files that hold something else."""
    path = folder / "weights.pth"
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        content = dict(state())
        name = draw.choice(sorted(content))
        tensor = content[name]
        odd: Any = draw.choice(
            (
                *VALUES,
                tensor.double(),
                tensor * torch.nan,
                tensor.to(torch.complex64),
                torch.atleast_1d(tensor).to_sparse(),
                torch.zeros(1).expand(1 << 40),
                torch.zeros(()),
                torch.zeros(0),
                tensor.bool(),
                {"weight": tensor},
            )
        )
        match draw.randrange(5):
            case 0:
                content[name] = odd
            case 1:
                content[odd if isinstance(odd, str | int | float) else str(odd)] = tensor
            case 2:
                content = {draw.choice(("state_dict", "model", "ema", "")): odd, "rest": content}
            case 3:
                content = odd
            case 4:
                for _ in range(draw.choice((1, 3, 200))):
                    content = {draw.choice(("state_dict", "model")): content}
        try:
            put(path, saved(content))
        except Exception:  # some of these values cannot be saved
            continue
        yield Case(f"{name} {str(odd)[:40]!r}", path.name, lambda: loaded(path))


def of_archives(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Members of the archive changed one by one: the pickle, the storages, the order of bytes."""
    path = folder / "weights.pth"
    with zipfile.ZipFile(io.BytesIO(saved(state()))) as whole:
        members = {each.filename: whole.read(each) for each in whole.infolist()}
    names = sorted(members)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        changed = dict(members)
        name = draw.choice([*names, *[each for each in names if each.endswith(".pkl")] * 20])
        content = changed[name]
        match draw.randrange(6):
            case 0:
                del changed[name]
            case 1:
                changed[name] = content[: draw.randrange(len(content) + 1)]
            case 2:
                place = draw.randrange(len(content) or 1)
                changed[name] = (
                    content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
                )
            case 3:
                changed[name] = hostile_pickle(folder / "executed")
            case 4:
                changed[f"{name}x"] = changed.pop(name)
            case 5:
                sizes = [b"K\x08", b"K\x10", b"K\x18", b"M\x00\x01"]
                huge = b"\x8a\x08" + draw.choice((2**40, 2**62)).to_bytes(8, "little")
                changed[name] = content.replace(draw.choice(sizes), huge, 1)
        kind = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(path, "w", kind) as file:
            for each, content in changed.items():
                file.writestr(each, content)
        yield Case(f"{name} {number}", path.name, lambda: loaded(path))
    assert not (folder / "executed").exists()


KINDS: dict[str, Cases] = {
    "checkpoints: bytes": of_bytes(".pth", lambda: saved(state())),
    "checkpoints: bytes before archives": of_bytes(".th", lambda: saved(state(), archive=False)),
    "checkpoints: bytes of safetensors": of_bytes(".safetensors", lambda: save(state())),
    "checkpoints: states": of_states,
    "checkpoints: archives": of_archives,
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_others(kind: str, tmp_path: Path) -> None:
    assert_clean(KINDS[kind], tmp_path, count=100)


@pytest.mark.parametrize("name", ["weights.pth", "weights.th", "weights.safetensors"])
def test_a_pickle_by_any_name_does_not_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(hostile_pickle(tmp_path / "executed"))
    with pytest.raises(SearchSpaceError, match=name):
        timm_query_model(NAME, 8, resolution=32, checkpoint=path)
    path.write_bytes(saved({"weight": _Mkdir(tmp_path / "executed")}))
    with pytest.raises(SearchSpaceError, match=name):
        timm_query_model(NAME, 8, resolution=32, checkpoint=path)
    assert not (tmp_path / "executed").exists()


class _Mkdir:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_the_pickle_would_run_elsewhere(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Mkdir(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
