"""Activations leave their input alone for a while, and then do as before."""

import pytest
import torch
from torch import nn

from searchspaces.out_of_place import out_of_place


def test_activations_leave_their_input_alone_inside_the_block() -> None:
    network = nn.Sequential(nn.ReLU6(inplace=True), nn.ReLU(), nn.Linear(2, 2))
    given = torch.tensor([[-1.0, 9.0]])
    with out_of_place(network):
        inside = network(given)
        assert given.tolist() == [[-1.0, 9.0]]
    assert torch.equal(network(given), inside)
    assert given.tolist() == [[0.0, 6.0]]
    assert not network[1].inplace


def test_they_do_as_before_where_the_block_fails() -> None:
    network = nn.Sequential(nn.Hardswish(inplace=True))
    with pytest.raises(RuntimeError), out_of_place(network):
        raise RuntimeError
    assert network[0].inplace
