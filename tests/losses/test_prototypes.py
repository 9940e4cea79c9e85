"""ODPP and NDPP: how prototypes are perturbed."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from references import DIMENSION, unit

from compat.losses import create_loss, ndpp
from compat.targets import AlignmentTargets


@pytest.mark.parametrize("name", ["odpp", "ndpp"])
def test_close_prototypes_are_perturbed_by_default(name: str) -> None:
    vectors = F.normalize(unit(1, 0) + 0.75 * unit(12, 1), dim=1).float()
    targets = AlignmentTargets(vectors, vectors, torch.arange(12))
    losses = [create_loss(each, targets) for each in (name, "bct")]
    query, rows = unit(12, 2).float(), torch.arange(12)
    optimiser = torch.optim.SGD(losses[0].parameters(), lr=1.0)
    for _ in range(3):
        optimiser.zero_grad()
        losses[0](query, vectors, targets.batch(rows)).backward()
        optimiser.step()
    losses[1].load_state_dict(losses[0].state_dict(), strict=False)
    perturbed, plain = (loss(query, vectors, targets.batch(rows)).item() for loss in losses)
    assert abs(perturbed - plain) > 0.01


def test_prototypes_step_away_from_their_neighbours() -> None:
    axes = torch.eye(DIMENSION, dtype=torch.float64)
    crowd = F.normalize(axes[0] + 0.4 * axes[1:4], dim=1)
    prototypes = torch.cat([crowd, axes[5:6], -axes[5:6]])
    moved = ndpp.spread(prototypes, 100, 0.4)
    before, after = (rows[:3] @ rows[:3].T for rows in (prototypes, moved))
    assert float(before[0, 1]) > 0.85
    assert float(after[0, 1]) < 0.8
    torch.testing.assert_close(moved[3:], prototypes[3:])  # nothing is near them
    torch.testing.assert_close(ndpp.spread(prototypes, 100, 0.0), prototypes)


def test_equal_prototypes_stay_where_they_are() -> None:
    pair = unit(1, 1).repeat(2, 1)
    torch.testing.assert_close(ndpp.spread(pair, 100, 0.4), pair)


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(2, 6),
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.floats(0, 1),
)
def test_moved_prototypes_have_length_one_and_stay_near(
    classes: int, dimension: int, seed: int, neighbours: int, step: float
) -> None:
    prototypes = unit(classes, seed, dimension)
    moved = ndpp.spread(prototypes, neighbours, step)
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(classes, dtype=torch.float64))
    # the mean of neighbours lies in the half of the unit ball around the prototype
    assert float((moved * prototypes).sum(1).min()) >= 1 / math.sqrt(1 + step**2) - 1e-9


def test_blocks_of_prototypes_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = unit(23, 3, 3)
    whole = ndpp.spread(prototypes, 10, 0.4)
    monkeypatch.setattr(ndpp, "_CELLS", 23 * 4)
    torch.testing.assert_close(ndpp.spread(prototypes, 10, 0.4), whole)


def test_perturbed_prototypes_learn_to_keep_apart() -> None:
    base = unit(3, 2).float()
    close = F.normalize(base[:1] + 0.15 * unit(4, 3).float(), dim=1)
    vectors = torch.cat([close, base[1:]])
    targets = AlignmentTargets(vectors, vectors, torch.arange(6))
    loss = create_loss({"odpp": {"weight": 1.0, "threshold": 0.9}}, targets)

    def closest() -> float:
        moved = F.normalize(vectors + loss.get_parameter("perturbation").detach(), dim=1)
        return float((moved @ moved.T - 2 * torch.eye(6)).max())

    before = closest()
    optimiser = torch.optim.AdamW(loss.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        loss(vectors, vectors, targets.batch(torch.arange(6))).backward()
        optimiser.step()
    assert before > 0.95
    assert closest() < 0.92
    torch.testing.assert_close(dict(loss.named_buffers())["gallery_weight"], vectors)
    resting = loss.get_parameter("perturbation")[4:]
    assert resting.abs().max() == 0  # far from all others
