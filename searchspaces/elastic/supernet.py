"""One network with shared weights that can act as any architecture of a space with stages."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from searchspaces.architecture import Architecture
from searchspaces.elastic.layers import ElasticConv2d, ElasticLinear, fold_kernels
from searchspaces.elastic.modules import ELASTIC, Layers
from searchspaces.projection import Projection
from searchspaces.query_model import QueryModel
from searchspaces.supernet import ElasticSpace, Supernet


class StagedPlans(ElasticSpace, Protocol):
    """What the supernet asks of its space: plans, and a network of elastic layers for a plan."""

    @property
    def stages(self) -> Sequence[Any]:
        """The choices of each stage, `kernels` among them."""

    def full_plan(self) -> Any:
        """Return the plan whose every layer holds that layer of every architecture."""

    def plan(self, architecture: Architecture) -> Any:
        """Work out an architecture's layers."""

    def backbone(self, plan: Any, layers: Layers) -> nn.Module:
        """Make the network from normalised images to pooled features."""


class StagedSupernet(Supernet):
    """A query model that is every architecture of a space at once, one at a time.

    Narrow layers are the first channels of wide ones, small kernels the centres of large ones,
    shallow stages the first blocks of deep ones (Cai et al., "Once-for-All", ICLR 2020; Yu et al.,
    "BigNAS", ECCV 2020). It starts as the largest architecture.

    Args:
        space: The architectures.
        dimension: Number of dimensions of the gallery space.
        kernel_transform: Whether smaller kernels are learnt maps of larger ones' centres.
    """

    space: StagedPlans
    backbone: Any  # has `stages`, and `activate` with a plan

    def __init__(
        self, space: StagedPlans, dimension: int, *, kernel_transform: bool = False
    ) -> None:
        plan = space.full_plan()
        projection = Projection(plan.features, dimension)
        projection.linear = ElasticLinear(plan.features, dimension)
        super().__init__(space.backbone(plan, ELASTIC), projection, resolution=plan.resolution)
        self.space = space
        if kernel_transform:
            for stage, blocks in zip(space.stages, self.backbone.stages, strict=True):
                for module in blocks.modules():
                    if isinstance(module, ElasticConv2d):
                        module.learn_kernels(stage.kernels)
        self.activate(space.largest())

    def activate(self, architecture: Architecture) -> None:
        """Act as this architecture from now on; images have to come at its resolution.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        plan = self.space.plan(architecture)
        self.backbone.activate(plan)
        self.resolution = plan.resolution
        self.architecture = architecture

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> QueryModel:
        """Copy an architecture out as `Supernet.extract` does, its learnt kernels folded in."""
        model = super().extract(architecture)
        fold_kernels(self, model)
        return model
