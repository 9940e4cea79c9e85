"""One timm backbone that acts as any of its slices."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pruning.elastic.costs import PROJECTION
from pruning.elastic.form import Form
from pruning.families import forget
from pruning.importance import NEEDS_LOSS, BatchLoss
from pruning.kept import Kept, kept_channels, set_kept
from pruning.nested import Cut, bound, by_importance, moved, reorder, take
from searchspaces import Architecture, ElasticSpace, QueryModel, Supernet
from searchspaces.support.seeding import seeded


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice without weights of its own.

    Attributes:
        outline: Its network; the tensors take no memory.
        cut: What it uses of each tensor of the whole network; those that are not named it uses
            whole.
        columns: Features of its levels before channels were left out.
    """

    outline: QueryModel
    cut: Mapping[str, Cut]
    columns: int


class Slices(ElasticSpace, Protocol):
    """What the supernet asks of its space."""

    @property
    def order(self) -> str:
        """Criterion by which channels are ordered."""

    @property
    def form(self) -> Form:
        """What can be taken from the backbone."""

    def is_whole(self, architecture: Architecture) -> bool:
        """Return whether an architecture keeps all channels and blocks."""

    def slice(self, architecture: Architecture, dimension: int) -> Slice:
        """Return which parts of the whole network's tensors a slice uses, and its network."""


class TimmElasticSupernet(Supernet):
    """A timm backbone that is every slice of it at once, one at a time.

    A slice runs in a network of its own that is lent the first channels of the shared weights as
    they lie; its layers are in the modes of the shared ones. Where BatchNorm normalises by the
    batch it leaves no trace in the statistics, which are the whole network's. It starts as the
    largest architecture.

    Args:
        space: The architectures.
        whole: The whole query model; its backbone and its projection become parts of this one.
    """

    space: Slices
    order: Tensor

    def __init__(self, space: Slices, whole: QueryModel) -> None:
        super().__init__(
            whole.backbone,
            whole.projection,
            resolution=whole.resolution,
            mean=whole.mean.flatten().tolist(),
            std=whole.std.flatten().tolist(),
        )
        self.space = space
        units = [torch.arange(group.units) for group in space.form.groups]
        self.register_buffer("order", torch.cat(units))
        self.activate(space.largest())

    def activate(self, architecture: Architecture) -> None:
        """Act as this architecture from now on; images have to come at its resolution.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        self._active = self.space.slice(architecture, self.dimension)
        self._is_whole = self.space.is_whole(architecture)
        self.architecture = architecture
        self.resolution = self._active.outline.resolution

    def pooled(self, images: Tensor) -> Tensor:
        """Map float images (B, 3, r, r) in [0, 1] to features (B, c) before the projection."""
        if self._is_whole:
            return super().pooled(images)
        network = self._active.outline.backbone
        forget(network)
        shared = dict(self.backbone.named_modules())
        for name, module in network.named_modules():
            module.training = shared[name].training
        lent = {
            name.removeprefix("backbone."): tensor.clone() if self._is_own(name) else tensor
            for name, tensor in self._lent(self._active)
            if name.startswith("backbone.")
        }
        features: Tensor = functional_call(network, lent, ((images - self.mean) / self.std,))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Map float images (B, 3, r, r) in [0, 1] to unit vectors (B, dimension)."""
        linear = self.projection.linear
        weight = take(linear.weight, self._active.cut[f"{PROJECTION}.weight"])
        return F.normalize(F.linear(self.pooled(images), weight, linear.bias), dim=-1)

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> QueryModel:
        """Copy a slice out as a network of its own, BatchNorm statistics included.

        In evaluation mode its outputs equal those of the supernet with this architecture active.

        Returns:
            An ordinary query model, in evaluation mode, on the supernet's device.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        slice_ = self.space.slice(architecture, self.dimension)
        model = copy.deepcopy(slice_.outline)
        if self.projection.linear.bias is None:
            model.projection.be_linear()
        parameters = dict(self.named_parameters())
        for name, tensor in self._lent(slice_):
            owner, _, leaf = name.rpartition(".")
            own = tensor.detach().clone()
            fresh = nn.Parameter(own) if name in parameters else own
            setattr(model.get_submodule(owner), leaf, fresh)
        set_kept(model, self._kept(slice_))
        return model.eval()

    def settle(self, batch_loss: BatchLoss | None = None) -> None:
        """Put channels in order of their importance, in place; the whole network's outputs stay.

        Args:
            batch_loss: As for `pruning.cut`; without it a criterion that needs one gives way to
                "magnitude".
        """
        self.activate(self.space.largest())
        criterion = self.space.order
        if batch_loss is None and criterion in NEEDS_LOSS:
            criterion = "magnitude"
        groups = bound(self.space.form.groups, self)
        with seeded(0):  # "random" draws
            orders = by_importance(self, groups, criterion, batch_loss)
        reorder(self, groups, orders)
        stood = [each.cpu().numpy() for each in self._orders()]
        now = [before[order] for before, order in zip(stood, orders, strict=True)]
        self.order.copy_(torch.from_numpy(np.concatenate(now)))

    def _orders(self) -> tuple[Tensor, ...]:
        return self.order.split([group.units for group in self.space.form.groups])

    def _lent(self, slice_: Slice) -> Iterator[tuple[str, Tensor]]:
        """The shared tensors as a slice sees them, by name."""
        own = dict([*self.named_parameters(), *self.named_buffers()])
        outline = slice_.outline
        for name, _ in [*outline.named_parameters(), *outline.named_buffers()]:
            if name in own:  # all but a bias of the projection, which models of before lack
                yield name, take(own[name], slice_.cut.get(name, {}))

    def _is_own(self, name: str) -> bool:
        """Whether a slice in training has a tensor to itself: statistics that it will overwrite."""
        return self.training and name.rpartition(".")[2] in _STATISTICS

    def _kept(self, slice_: Slice) -> Kept:
        """Channels of the published network that a slice has, in the order in which they stand."""
        kept = kept_channels(slice_.outline)
        there = {name for name, _ in self._lent(slice_)}
        for group, order in zip(self.space.form.groups, self._orders(), strict=True):
            if bool((order.diff() == 1).all()):
                continue  # never moved, as channels that cannot be
            for member in group.members:
                if not there & {member.name, f"{member.name}.weight"}:
                    continue  # in a block that is left out
                rows = moved(group, member, order.cpu().numpy())
                if member.name == PROJECTION:  # a slice of fewer levels has its first columns
                    rows = rows[: slice_.columns]
                sides = kept.setdefault(member.name, {})
                side = "in" if member.side == "in" else "out"
                sides[side] = [int(rows[place]) for place in sides.get(side, range(len(rows)))]
        return kept


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
