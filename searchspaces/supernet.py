"""One network with shared weights that can act as any architecture of its space."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from searchspaces.architecture import Architecture
from searchspaces.elastic import shared_part
from searchspaces.query_model import QueryModel
from searchspaces.space import SearchSpace
from searchspaces.support.seeding import seeded


class Supernet(QueryModel):
    """A query model that is every architecture of a space at once, one at a time.

    Its modules have the names of those of `space.build`, and hold their weights as
    `searchspaces.elastic.shared_part` finds them. It starts as the largest architecture.

    Attributes:
        space: The architectures.
        architecture: The one that it acts as.
    """

    space: "ElasticSpace"
    architecture: Architecture

    @abstractmethod
    def activate(self, architecture: Architecture) -> None:
        """Act as this architecture from now on; images have to come at its resolution.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> QueryModel:
        """Copy an architecture out as a network of its own, BatchNorm statistics included.

        In evaluation mode its outputs equal those of the supernet with this architecture active.

        Returns:
            A model of ordinary PyTorch layers, in evaluation mode, on the supernet's device.
        """
        with seeded(0):  # all of its weights are replaced
            model = self.space.build(architecture, self.dimension)
        if self.projection.linear.bias is None:
            model.projection.be_linear()
        shared = self.state_dict()
        for name, tensor in model.state_dict().items():
            tensor.copy_(shared_part(shared[name], tensor.shape))
        return model.to(self.mean.device).eval()

    def settle(self, batch_loss: Callable[[QueryModel], Iterable[Tensor]]) -> None:
        """Get ready for training, once weights that were inherited and a projection are there.

        Nothing is done here. A supernet whose slices depend on the order of its channels puts them
        in order.

        Args:
            batch_loss: Maps a query model to the losses of some batches, one by one.
        """


@runtime_checkable
class ElasticSpace(SearchSpace, Protocol):
    """A search space whose architectures can share their weights."""

    def largest(self) -> Architecture:
        """Return the architecture with the most multiply-accumulates."""

    def smallest(self) -> Architecture:
        """Return the architecture with the fewest multiply-accumulates."""

    def supernet(self, dimension: int) -> Supernet:
        """Make the network that acts as any of them, with fresh weights."""


@runtime_checkable
class InheritingSpace(ElasticSpace, Protocol):
    """An elastic space that can begin with weights that were trained before."""

    def inherited(self, dimension: int) -> Supernet:
        """Make the network that acts as any architecture, with weights that were trained before."""
