"""What a killed training takes up again, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compat.errors import CompatError
from compat.training import Best, Checkpoint, MovingAverage

CPU = torch.device("cpu")
SETTINGS = {"lr": 0.1, "seed": 0}


def parts(start: float = 0.0) -> dict[str, Any]:
    """A small training: a network filled with one number, and what goes with it."""
    model = nn.Linear(2, 3)
    nn.init.constant_(model.weight, start)
    nn.init.constant_(model.bias, start)
    average = MovingAverage(model, 0.5)
    return {
        "trained": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "average": average,
        "best": Best(average.model, lambda network: network.weight.sum().item()),
    }


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoint:
    """The state after two epochs, of which the second is the best."""
    state = parts(2.0)
    state["best"].look(2)
    checkpoint = Checkpoint(tmp_path / "state", SETTINGS)
    checkpoint.save(state, 2)
    return checkpoint


def test_every_part_goes_on_where_it_was(kept: Checkpoint) -> None:
    state = parts()
    assert kept.load(state, CPU, epochs=3) == 2
    assert state["trained"].weight.sum().item() == 12.0
    fitted = state["best"].give(state["trained"])
    assert (fitted.best, fitted.epoch, fitted.history) == (12.0, 2, {2: 12.0})
    assert [file.name for file in kept.path.parent.iterdir()] == ["state"]


def test_without_a_file_a_training_begins(tmp_path: Path) -> None:
    state = parts(1.0)
    assert Checkpoint(tmp_path / "none", SETTINGS).load(state, CPU, epochs=3) == 0
    assert state["trained"].weight.sum().item() == 6.0


def test_other_settings_are_named(kept: Checkpoint) -> None:
    with pytest.raises(CompatError, match=r"state' was begun with lr = 0\.1, not 0\.2; delete it"):
        Checkpoint(kept.path, {**SETTINGS, "lr": 0.2}).load(parts(), CPU, epochs=3)
    with pytest.raises(CompatError, match="was begun with warmup = None, not 3"):
        Checkpoint(kept.path, {**SETTINGS, "warmup": 3}).load(parts(), CPU, epochs=3)


def test_settings_that_had_another_name_are_the_same(kept: Checkpoint) -> None:
    old = {"arch": "timm:resnet18", "size": 32, "learning_rate": 0.1}
    content = torch.load(kept.path, weights_only=True)
    torch.save({**content, "settings": old}, kept.path)
    new = {"backbone": "timm:resnet18", "resolution": 32, "lr": 0.1}
    assert Checkpoint(kept.path, new).load(parts(), CPU, epochs=3) == 2
    with pytest.raises(CompatError, match="was begun with resolution = 32, not 64"):
        Checkpoint(kept.path, {**new, "resolution": 64}).load(parts(), CPU, epochs=3)
    torch.save({**content, "settings": {**old, "lr": 0.1}}, kept.path)
    with pytest.raises(CompatError, match=r"`learning_rate` is the old name of `lr`, and both"):
        Checkpoint(kept.path, new).load(parts(), CPU, epochs=3)


@pytest.mark.parametrize(
    "change",
    [
        {"parts": {}},
        {"parts": 3},
        {"settings": None},
        {"epochs": "two"},
        {"parts": {"trained": {"weight": torch.zeros(2, 2)}}},
        {"parts": {"trained": {}, "optimizer": {"state": 1}}},
        {"version": -1.5},
        {"version": "one"},
    ],
)
def test_a_state_of_something_else_is_refused(kept: Checkpoint, change: dict[str, Any]) -> None:
    content = torch.load(kept.path, weights_only=True)
    torch.save({**content, **change}, kept.path)
    with pytest.raises(CompatError, match=r"state' .*; delete it to train from the start"):
        kept.load(parts(), CPU, epochs=3)


def test_best_weights_of_another_network_are_refused(kept: Checkpoint) -> None:
    content = torch.load(kept.path, weights_only=True)
    content["parts"]["best"]["weights"]["weight"] = torch.zeros(4, 4)
    torch.save(content, kept.path)
    with pytest.raises(CompatError, match="best weights have other shapes"):
        kept.load(parts(), CPU, epochs=3)


def test_damaged_and_later_files_are_refused(kept: Checkpoint) -> None:
    torch.save({"version": 7}, kept.path)
    with pytest.raises(CompatError, match=r"of version 7, .* update querynas"):
        kept.load(parts(), CPU, epochs=3)
    torch.save([1, 2], kept.path)
    with pytest.raises(CompatError, match="no state of this training"):
        kept.load(parts(), CPU, epochs=3)
    kept.path.write_bytes(b"no state at all")
    with pytest.raises(CompatError, match="delete it to train from the start"):
        kept.load(parts(), CPU, epochs=3)


def test_the_last_epoch_is_kept_where_nothing_is_scored() -> None:
    model = nn.Linear(1, 1)
    best = Best(model)
    for epoch in (1, 2):
        nn.init.constant_(model.weight, epoch)
        assert math.isnan(best.look(epoch))
    nn.init.constant_(model.weight, 9.0)
    assert best.give(model).epoch == 2
    assert model.weight.item() == 2.0
