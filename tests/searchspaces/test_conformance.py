"""The checks for spaces of one's own: ours pass, and each rule is noticed when it is broken."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
import tiny_spaces
from optuna.distributions import IntDistribution

from pruning import PrunedSpace
from searchspaces import Architecture, MBConvSpace, SearchSpace, TimmSpace, UnionSpace
from searchspaces.testing import check_space

TINY = MBConvSpace(
    resolutions=(16, 24),
    stem_widths=(8,),
    stages=[{"widths": [8, 16], "depths": [1, 2], "strides": [1, 2]}],
    head_widths=(16, 32),
)
SPACES: dict[str, SearchSpace] = {
    "mbconv": tiny_spaces.MBCONV,
    "resnet": tiny_spaces.RESNET,
    "vit": tiny_spaces.VIT,
    "shufflenet": tiny_spaces.SHUFFLENET,
    "timm": TimmSpace(["lcnet_050", "resnet10t"], resolutions=[32, 48], pretrained=False),
    "pruned": PrunedSpace("lcnet_050", resolutions=[32], pretrained=False),
    "union": UnionSpace({"a": {"space": "mbconv"}, "b": {"space": "vit"}}),
}


@pytest.mark.parametrize("name", SPACES)
def test_ours_pass(name: str) -> None:
    check_space(SPACES[name], networks=2)


def broken(name: str, method: Callable[..., Any]) -> MBConvSpace:
    """The tiny space with one method replaced."""
    kind: Any = type("Broken", (MBConvSpace,), {name: method})
    space: MBConvSpace = kind(**dataclasses.asdict(TINY))
    return space


def without_origin(self: MBConvSpace, architecture: Architecture, dimension: int) -> Any:
    model = MBConvSpace.build(self, architecture, dimension)
    model.origin = None
    return model


def another_origin(self: MBConvSpace, architecture: Architecture, dimension: int) -> Any:
    return MBConvSpace.build(self, self.largest(), dimension)


def with_another_weight(self: MBConvSpace, dimension: int) -> Any:
    supernet = MBConvSpace.supernet(self, dimension)
    extract = supernet.extract

    def changed(architecture: Architecture) -> Any:
        model = extract(architecture)
        model.projection.linear.weight.data.mul_(-1)
        return model

    supernet.extract = changed  # type: ignore[method-assign]
    return supernet


BROKEN: dict[str, tuple[str, Callable[..., Any], str]] = {
    "another name": (
        "sample",
        lambda self, rng: Architecture("mine", TINY.sample(rng).params),
        "sample gives an architecture of 'mine'",
    ),
    "a value outside": (
        "sample",
        lambda self, rng: Architecture("mbconv", {**TINY.sample(rng).params, "resolution": 40}),
        "sample gives resolution = 40, outside of",
    ),
    "an undeclared parameter": (
        "distributions",
        lambda self: {**TINY.distributions(), "resolution": IntDistribution(16, 32, step=8)},
        "suggest asks for 'resolution' from",
    ),
    "no neighbours": (
        "neighbours",
        lambda self, architecture: iter([architecture]),
        "neighbours of .* repeat",
    ),
    "a wrong formula": ("macs", lambda self, architecture, dimension: 7, "macs says 7 of"),
    "no origin": ("build", without_origin, "without an origin"),
    "another network": ("build", another_origin, "macs says|is built for"),
    "the wrong largest": ("largest", lambda self: TINY.smallest(), "MACs, but smallest"),
    "a supernet of its own": ("supernet", with_another_weight, "network that it extracts differ"),
    "a block too few": (
        "every_block",
        lambda self, dimension: [b for b in TINY.every_block(dimension) if "head" not in b.key],
        "every_block lacks",
    ),
}


def test_what_is_broken_was_whole() -> None:
    check_space(broken("sample", lambda self, rng: TINY.sample(rng)))


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_noticed(rule: str) -> None:
    name, method, sentence = BROKEN[rule]
    with pytest.raises(AssertionError, match=sentence):
        check_space(broken(name, method), networks=8)


def test_a_space_that_takes_strangers_is_noticed() -> None:
    def build(self: MBConvSpace, architecture: Architecture, dimension: int) -> Any:
        known = architecture if architecture.space == "mbconv" else self.sample(random.Random(0))
        return MBConvSpace.build(self, known, dimension)

    with pytest.raises(AssertionError, match="build takes an architecture of the space 'not mb"):
        check_space(broken("build", build))
