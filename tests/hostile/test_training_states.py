"""States of unfinished trainings, as anybody could have made them."""

import io
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import VALUES, Case, Cases, assert_clean, hostile_pickle, mutated_bytes, put
from torch import Tensor, nn

from compat.errors import CompatError
from compat.training import Best, Checkpoint, Course, Descent, MovingAverage, fit

CPU = torch.device("cpu")


def train(path: Path, epochs: int = 4) -> None:
    """Train to the end, or go on from what lies in ``path``, which is four epochs long as such."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=9)
    average = MovingAverage(model, 0.9)
    best = Best(average.model, lambda _: 1.0)

    def losses(images: Tensor, _: int) -> Iterator[Tensor]:
        yield model(images).square().mean()

    fit(
        model,
        losses,
        Course(epochs, 2, lambda epoch: torch.rand(2, 5, 3), seed=0),
        Descent(optimizer, scheduler, device=CPU),
        title="test",
        remedy="try again",
        average=average,
        best=best,
        checkpoint=Checkpoint(path, {"lr": 0.01, "seed": 0}),
        quiet=True,
    )
    best.give(model)
    model(torch.rand(2, 3))


@cache
def begun() -> bytes:
    """The state after two epochs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        train(path, epochs=2)
        return path.read_bytes()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def of_bytes(folder: Path, seed: int, count: int) -> Iterator[Case]:
    path = folder / "training.checkpoint"
    for what, changed in mutated_bytes(begun(), seed, count):
        put(path, changed)
        yield Case(what, path.name, lambda: train(path))


def of_values(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Well-formed files in which one value is another."""
    path = folder / "training.checkpoint"
    content = torch.load(io.BytesIO(begun()), weights_only=True)
    places = [*_places(content)]
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        place = draw.choice(places)
        put(path, saved(_changed(content, place, draw)))
        yield Case(f"{number}: {place}", path.name, lambda: train(path))


def _places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name, value in content.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from _places(value, (*before, name))


def _changed(content: Any, place: tuple[Any, ...], draw: random.Random) -> Any:
    name, *rest = place
    copied = dict(content)
    if rest:
        copied[name] = _changed(content[name], tuple(rest), draw)
    elif draw.random() < 0.2:
        value = copied.pop(name)
        if draw.random() < 0.5:
            copied[f"{name}x"] = value
    else:
        copied[name] = draw.choice([*VALUES, *_tensors(content[name])])
    return copied


def _tensors(value: Any) -> list[Any]:
    tensor = value if isinstance(value, Tensor) else torch.rand(3)
    return [
        *(tensor.double(), tensor * torch.nan, tensor.bool(), -tensor, tensor.int() - 10),
        *(torch.zeros(0), torch.zeros(()), torch.zeros(1).expand(1 << 40), torch.zeros(7, 7)),
        *(tensor.to(torch.complex64), torch.atleast_1d(tensor).to_sparse(), {"x": tensor}),
    ]


KINDS: dict[str, Cases] = {"training states: bytes": of_bytes, "training states: values": of_values}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_hostile_state_goes_on_or_is_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    assert_clean(KINDS[kind], tmp_path, count=150)


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    path, marker = tmp_path / "training.checkpoint", tmp_path / "marker"
    path.write_bytes(hostile_pickle(marker))
    with pytest.raises(CompatError, match=r"training\.checkpoint"):
        train(path)
    assert not marker.exists()


def test_an_undamaged_state_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    path.write_bytes(begun())
    train(path)
    assert torch.load(path, weights_only=True)["epochs"] == 4


def test_a_weight_that_never_had_a_gradient_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    content = torch.load(io.BytesIO(begun()), weights_only=True)
    del content["parts"]["descent"][0]
    path.write_bytes(saved(content))
    train(path)
    assert torch.load(path, weights_only=True)["epochs"] == 4
