"""ArcFace's margin."""

import math

import pytest
import torch
from references import cross_entropy

from compat.losses.margin import arcface


@pytest.mark.parametrize("margin", [0.15, 0.5])
def test_more_angle_to_the_own_class_is_never_cheaper(margin: float) -> None:
    """The other class's weight is square to the plane that the embedding turns in."""
    angles = torch.linspace(0, math.pi, 200, dtype=torch.float64)
    query = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=1)
    weights = torch.eye(3, dtype=torch.float64)[[0, 2]]
    own = torch.zeros(1, dtype=torch.int64)
    losses = [arcface(q[None], weights, own, scale=8.0, margin=margin).item() for q in query]
    expected = [cross_entropy(q, weights.tolist(), 0, 8.0, margin) for q in query[1:-1].tolist()]
    assert losses[1:-1] == pytest.approx(expected, abs=1e-6)
    assert losses == sorted(losses)
