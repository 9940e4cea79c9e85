"""One dense query model and its subnetworks of smaller capacity, which share its weights."""

import copy
import math
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pruning.channels import Group
from pruning.errors import PruningError
from pruning.nested.masks import Scores
from pruning.nested.normalisation import norm_parameters, shell
from pruning.nested.slices import Cut, channel_groups, cuts, narrow, take
from searchspaces import QueryModel

Method = Literal["structured", "masks", "switchable"]

METHODS: tuple[Method, ...] = get_args(Method)


class NestedModel(nn.Module):
    """A dense query model that also acts as each of its nested subnetworks.

    A capacity is a share of the weights, 0 < capacity <= 1; capacity 1 is the dense network. Which
    weights it has depends on the method:

    - "structured": nearly that share. The first ⌈√capacity · n⌉ channels of every group of channels
      that depend on each other are kept, so put them in order first (`order_channels`). Weights
      and work fall about with the capacity.
    - "switchable": the same channels, and normalisation layers of its own for every capacity, as
      SFSC (Wu et al., "Switchable representation learning framework with self-compatibility", CVPR
      2023) takes it over from slimmable networks (Yu et al., ICLR 2019).
    - "masks": that share of every layer, chosen by learnt scores (PrunNet, see `Scores`). No work
      is saved.

    In each method every capacity has BatchNorm statistics of its own.

    Args:
        dense: The dense network; it becomes a part of this module.
        capacities: Those that are trained, 1 among them; they are kept in falling order.
        method: How subnetworks are formed.
        seed: Of the scores of "masks".

    Raises:
        PruningError: If a capacity or the method is out of range, or the network has channels that
            cannot be left out.
    """

    def __init__(
        self,
        dense: QueryModel,
        capacities: Sequence[float],
        *,
        method: Method = "structured",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise PruningError(f"no method '{method}' of nesting: use one of {', '.join(METHODS)}")
        for capacity in capacities:
            _check_capacity(capacity)
        if 1.0 not in capacities:
            raise PruningError(
                "the capacities of a nested model lack 100%, the dense network: add it"
            )
        self.capacities = tuple(sorted(set(map(float, capacities)), reverse=True))
        self.method = method
        self.dense = dense
        self.groups: list[Group] = []
        self.scores = Scores(dense, seed=seed) if method == "masks" else None
        if self.scores is None:
            self.groups = channel_groups(dense)
        own = norm_parameters(dense) if method == "switchable" else frozenset[str]()
        self._shared = [name for name, _ in dense.named_parameters() if name not in own]
        self._cuts: dict[float, dict[str, Cut]] = {
            c: cuts(dense, self.groups, self.width(c)) for c in self.capacities
        }
        self.shells = nn.ModuleList(
            shell(self._subnetwork(c), self._shared) for c in self.capacities[1:]
        )
        self._passing: dict[float, QueryModel] = {}  # not kept: they have nothing of their own

    def width(self, capacity: float) -> float:
        """Share of the channels that a capacity keeps."""
        return 1.0 if self.method == "masks" else math.sqrt(capacity)

    def forward(self, images: Tensor, capacity: float = 1.0) -> Tensor:
        """Map float images (B, 3, r, r) in [0, 1] to unit vectors (B, dimension).

        The first channels of the shared weights are used as they lie, so a small capacity is cheap
        in training too.

        Args:
            images: As for the dense query model.
            capacity: One of the trained capacities. In training mode, and with shared
                normalisation layers, any: its BatchNorm normalises as the dense network's does when
                it is first asked for, by the batch or by the channels' statistics there.

        Raises:
            PruningError: If the capacity cannot be had.
        """
        if capacity == 1.0:
            return cast(Tensor, self.dense(images))
        between = self.training and self.method != "switchable"
        own = self._shell(capacity, passing=between)
        return cast(Tensor, functional_call(own, self._lent(capacity), (images,)))

    def extract(self, capacity: float) -> QueryModel:
        """Copy a subnetwork out as an ordinary query model in evaluation mode.

        In evaluation mode its outputs equal those of this module at this capacity. At a capacity
        that was not trained, BatchNorm statistics are parts of the dense network's and should be
        estimated again (`searchspaces.recalibrate`).

        Raises:
            PruningError: If the capacity is out of range, or was not trained with "switchable",
                whose normalisation layers it lacks.
        """
        _check_capacity(capacity)
        if self.method == "switchable" and capacity not in self.capacities:
            known = ", ".join(format_capacity(c) for c in self.capacities)
            raise PruningError(
                f"a switchable model has no normalisation layers for {format_capacity(capacity)}: "
                f"choose one of {known}, or train with method 'structured'"
            )
        model = self._subnetwork(capacity)
        if capacity in self.capacities[1:]:
            model.load_state_dict(self._shell(capacity).state_dict(), strict=False)
        return model.eval()

    def keep_statistics(self, capacity: float, model: QueryModel) -> None:
        """Take over the BatchNorm statistics of an extracted trained capacity."""
        own = self.dense if capacity == 1.0 else self._shell(capacity)
        theirs = model.state_dict()
        own.load_state_dict({name: theirs[name] for name, _ in own.named_buffers()}, strict=False)

    def _shell(self, capacity: float, *, passing: bool = False) -> QueryModel:
        if capacity in self.capacities[1:]:
            return cast(QueryModel, self.shells[self.capacities.index(capacity) - 1])
        if not passing:
            raise PruningError(
                f"{format_capacity(capacity)} is no trained capacity below 100%: extract() it"
            )
        if capacity not in self._passing:
            _check_capacity(capacity)
            self._cuts[capacity] = cuts(self.dense, self.groups, self.width(capacity))
            own = shell(self._subnetwork(capacity), self._shared)
            for name, module in own.named_modules():
                module.training = self.dense.get_submodule(name).training
            self._passing[capacity] = own
        return self._passing[capacity]

    @torch.no_grad()
    def _subnetwork(self, capacity: float) -> QueryModel:
        if self.scores is None:
            return narrow(self.dense, self.groups, self.width(capacity))
        model = copy.deepcopy(self.dense)
        if capacity < 1.0:
            for name, weight in self.scores.masked(self.dense, capacity).items():
                model.get_parameter(name).copy_(weight)
        return model

    def _lent(self, capacity: float) -> dict[str, Tensor]:
        """The shared parameters as a capacity sees them, by name."""
        dense = dict(self.dense.named_parameters())
        if self.scores is not None:
            return dense | self.scores.masked(self.dense, capacity)
        cut = self._cuts[capacity]
        return {name: take(dense[name], cut.get(name, {})) for name in self._shared}


def format_capacity(capacity: float) -> str:
    """Write a capacity as people do: "37%"."""
    return f"{100 * capacity:g}%"


def parse_capacity(text: str) -> float:
    """Read a capacity in percent: "37%" or "37" is 0.37.

    Raises:
        PruningError: If it is no number above 0 and up to 100.
    """
    try:
        capacity = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        capacity = math.nan
    if not 0 < capacity <= 1:
        raise PruningError(
            f"the capacity '{text}' is not understood: give percent above 0 and up to 100, e.g. 37%"
        )
    return capacity


def _check_capacity(capacity: float) -> None:
    if not 0 < capacity <= 1:
        raise PruningError(f"the capacity {capacity} is no share above 0 and up to 1")
