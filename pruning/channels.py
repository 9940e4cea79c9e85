"""Which channels of which layers can only be removed together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from searchspaces import QueryModel

Side = Literal["in", "out", "both"]
Labels = NDArray[np.int64]
FIXED = -1
"""Label of a channel that nothing may remove, as those of the image."""


@dataclass(frozen=True)
class Member:
    """One side of a layer that a group reaches.

    Attributes:
        name: The layer's name, or the name of a parameter that belongs to no plain layer.
        layer: The layer; None for a parameter.
        side: Whether input or output channels go, or "both" where they are the same ones.
        dim: Dimension of the channels in the parameter or weight.
        unit_of: For every channel of that side the unit of the group that it goes with, or -1.
    """

    name: str
    layer: nn.Module | None
    side: Side
    dim: int
    unit_of: Labels


@dataclass(frozen=True)
class Group:
    """Units that can be removed one by one; a unit takes its channels from every member.

    Attributes:
        units: Number of units.
        channels: Number of channels of one unit among the outputs of the layer with the fewest.
        members: The sides of layers.
    """

    units: int
    channels: int
    members: tuple[Member, ...]


class Channels:
    """Labels of the channels of a model's layers; channels with equal labels go together.

    Args:
        model: The model whose layers are labelled.
    """

    def __init__(self, model: QueryModel) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._layers = {name: module for module, name in self._names.items()}
        self._labels: dict[tuple[str, Side], Labels] = {}
        self._dims: dict[tuple[str, Side], int] = {}
        self._parent: list[int] = []

    def name(self, layer: nn.Module) -> str:
        """Return the name of a layer of the model."""
        return self._names[layer]

    def fresh(self, count: int) -> Labels:
        """Return `count` labels that no channel has."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def of(self, layer: nn.Module | str, side: Side, width: int) -> Labels:
        """Return the labels of one side of a layer, or its name; fixed ones where it has none."""
        name = layer if isinstance(layer, str) else self._names[layer]
        return self._labels.get((name, side), np.full(width, FIXED))

    def put(self, layer: nn.Module | str, side: Side, labels: Labels, *, dim: int = 0) -> None:
        """Label one side of a layer, or the dimension `dim` of a parameter given by its name."""
        key = (layer if isinstance(layer, str) else self._names[layer]), side
        self._dims[key] = dim
        known = self._labels.setdefault(key, labels.copy())
        missing = known == FIXED
        self.tie(known[~missing], labels[~missing])
        known[missing] = labels[missing]

    def drop(self, layer: nn.Module, *sides: Side) -> None:
        """Take the labels off some sides of a layer."""
        for side in sides:
            self._labels.pop((self._names[layer], side), None)

    def has(self, layer: nn.Module, side: Side) -> bool:
        """Return whether that side of a layer is labelled."""
        return (self._names[layer], side) in self._labels

    def tie(self, one: Labels, other: Labels) -> None:
        """Let channels with these labels go together, pair by pair; FIXED fixes the other one."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            a, b = sorted((self._root(a), self._root(b)))
            if a != b:
                self._parent[b] = a

    def groups(self) -> list[Group]:
        """Return the removable groups; their units reach the same sides of the same layers."""
        roots = {
            key: np.array([self._root(label) for label in labels.tolist()], dtype=np.int64)
            for key, labels in self._labels.items()
        }
        reached: dict[int, list[tuple[str, Side]]] = {}
        for key, labels in roots.items():
            for label in dict.fromkeys(labels.tolist()):
                if label != FIXED:
                    reached.setdefault(label, []).append(key)
        alike: dict[tuple[tuple[str, Side], ...], list[int]] = {}
        for label, keys in reached.items():
            alike.setdefault(tuple(keys), []).append(label)
        return [self._group(keys, labels, roots) for keys, labels in alike.items()]

    def _group(
        self,
        keys: Iterable[tuple[str, Side]],
        labels: list[int],
        roots: dict[tuple[str, Side], Labels],
    ) -> Group:
        unit = {label: index for index, label in enumerate(sorted(labels))}
        members = tuple(
            Member(
                name=name,
                layer=self._layers.get(name),
                side=side,
                dim=self._dims[name, side],
                unit_of=np.array([unit.get(each, -1) for each in roots[name, side].tolist()]),
            )
            for name, side in keys
        )
        makers = [member for member in members if member.side == "out"] or members
        counts = [np.bincount(m.unit_of[m.unit_of >= 0], minlength=len(unit)) for m in makers]
        return Group(len(unit), int(min(each.min() for each in counts)), members)

    def _root(self, label: int) -> int:
        while label != FIXED and self._parent[label] != label:
            above = self._parent[label]
            if above != FIXED:
                self._parent[label] = self._parent[above]
            label = above
        return label


def removed(groups: Iterable[tuple[Group, NDArray[np.bool_]]]) -> Iterator[tuple[Member, Labels]]:
    """Yield for every member the positions of its channels that go.

    Args:
        groups: Groups with, for each of their units, whether it stays.
    """
    for group, stays in groups:
        for member in group.members:
            goes = np.append(~stays, False)  # the last one is for unit -1
            yield member, np.flatnonzero(goes[member.unit_of])
