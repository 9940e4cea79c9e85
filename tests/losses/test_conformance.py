"""The conformance kit: all losses of the package pass, and each kind of mistake is found."""

import pytest
import torch
from torch import Tensor

import compat.losses.base
from compat.losses import CompatibilityLoss, list_losses, register_loss
from compat.testing import check_loss


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(compat.losses.base, "_LOSSES", dict(compat.losses.base._LOSSES))


@pytest.mark.parametrize("name", list_losses())
def test_every_loss_of_the_package_passes(name: str) -> None:
    check_loss(name)


def test_options_are_those_of_a_study_file() -> None:
    check_loss({"ssp": {"weight": 0.5, "subspaces": 4, "bits": 3}, "regression": 1})


def rough(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query - target).square()


def unseeded(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query - target).square().mean() * torch.rand(())


def blind(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return target.square().mean()


def cut_off(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query.detach() - target).square().mean() + 0 * query.sum()


def infinite(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query - target).square().mean() / 0


def doubled(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query - target).double().square().mean()


def steep(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query - query.detach()).norm(dim=1).pow(0.5).mean() + (query - target).square().mean()


def needs_a_pair(query: Tensor, target: Tensor, batch: object) -> Tensor:
    return (query - target).square().std(dim=0).mean()


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (rough, "has shape"),
        (unseeded, "two losses of one seed"),
        (blind, "does not depend"),
        (cut_off, "is zero"),
        (infinite, "of a batch of many classes the loss is inf"),
        (doubled, "is torch.float64"),
        (steep, "NaN or infinity"),
        (needs_a_pair, "of one image the loss is nan"),
    ],
)
def test_a_mistake_is_named(function: object, sentence: str) -> None:
    register_loss("mistaken")(function)
    with pytest.raises(AssertionError, match=sentence):
        check_loss("mistaken")


class Careless(CompatibilityLoss):
    """Takes whatever comes, in whatever precision."""

    def __call__(self, query: Tensor, target: Tensor, batch: object) -> Tensor:
        rows = min(len(query), len(target))
        loss: Tensor = (1 - query[:rows].flatten() @ target[:rows].flatten() / rows).float()
        return loss


def test_a_loss_that_goes_round_the_checks_is_found() -> None:
    register_loss("careless")(Careless)
    with pytest.raises(AssertionError, match="under autocast"):
        check_loss("careless")
