"""Whoever calls us goes on with the random numbers that would have come anyway."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compat.gallery.heads import HashHead, HeadTraining, train_head
from compat.losses import create_loss, list_losses
from compat.testing import random_targets
from pruning import load_model, save_model
from searchspaces import create_space, timm_query_model
from searchspaces.support.seeding import seeded
from searchspaces.timing import forward_seconds, measure_latency


@pytest.fixture(autouse=True)
def _draws_are_left_alone() -> Any:
    """Every test in this file is about this."""
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before)


def test_draws_inside_a_block_depend_on_its_seed_alone() -> None:
    def drawn(seed: int) -> Tensor:
        with seeded(seed):
            return torch.rand(3)

    first = drawn(1)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)


def test_draws_go_on_after_an_error() -> None:
    with pytest.raises(RuntimeError), seeded(0):
        torch.rand(2) @ torch.rand(3)


@pytest.mark.parametrize("name", list_losses())
def test_losses_are_prepared_from_their_seed(name: str) -> None:
    one, other = (create_loss(name, random_targets(), seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_head_with_dropout_is_trained_from_its_seed() -> None:
    def trained() -> dict[str, Tensor]:
        with seeded(0):
            head = nn.Sequential(nn.Dropout(), HashHead(4, 8))
            rows = torch.rand(16, 4)
        train_head(
            head, lambda chosen: head(rows[chosen]).mean(), 16, HeadTraining(steps=3), title="test"
        )
        return head.state_dict()

    one, other = trained(), trained()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_saved_model_opens_without_draws(tmp_path: Path) -> None:
    with seeded(0):
        model = timm_query_model("test_resnet", 4, resolution=32, pretrained=False)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())


def test_timing_draws_nothing() -> None:
    with seeded(0):
        layer = nn.Conv2d(3, 1, 1)
    assert measure_latency(layer, 8, runs=1) > 0
    assert all(passed > 0 for passed in forward_seconds(layer, (3, 8, 8), "pytorch", runs=2))


def test_a_space_of_backbones_counts_without_draws() -> None:
    space: Any = create_space("timm", backbones=["test_resnet"], pretrained=False)
    assert space.macs(space.sample(random.Random(0)), 4) > 0
