"""What of a backbone is elastic: groups of channels by stage, and blocks that can be left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pruning.channels import Group
from pruning.elastic.blocks import optional_blocks
from pruning.families import prepare
from pruning.nested import bound, channel_groups
from pruning.stages import stages, touched_stages
from searchspaces import QueryModel, outline, timm_query_model
from searchspaces.backbone import TimmBackbone
from searchspaces.support.seeding import seeded

BACKBONE = "backbone.network."
"""What names of a timm network begin with in a query model."""


@dataclass(frozen=True, eq=False)
class Form:
    """A backbone without weights, and what can be taken from it.

    Attributes:
        whole: The whole query model, in one dimension and without memory for its tensors.
        groups: Its channels that can only be kept or dropped together.
        stages: Names of its stages, in order, with their layers.
        touched: For every group the stages whose layers make its channels; none for a group that is
            always whole.
        blocks: For every stage its blocks that can be left out, in order, as the timm network calls
            them.
    """

    whole: QueryModel
    groups: tuple[Group, ...]
    stages: Mapping[str, Sequence[str]]
    touched: tuple[frozenset[str], ...]
    blocks: Mapping[str, tuple[str, ...]]


def find_form(
    backbone: str,
    *,
    resolution: int,
    pooling: str,
    levels: Sequence[str] = (),
    known: Mapping[str, Sequence[str]] | None = None,
) -> Form:
    """Take a backbone apart; it runs a few times on the CPU, with random weights.

    Args:
        backbone: As for `timm_query_model`.
        resolution: As for `timm_query_model`.
        pooling: As for `timm_query_model`.
        levels: As for `timm_query_model`.
        known: Stages with their layers, of which this backbone may have some; found when None.

    Raises:
        PruningError: If its channels cannot be reordered or dropped freely.
        SearchSpaceError: As `timm_query_model`.
    """
    with seeded(0):
        model = timm_query_model(
            backbone,
            1,
            resolution=resolution,
            pooling=pooling,
            levels=levels,
            pretrained=False,
        ).eval()
        groups = channel_groups(model)
        images = torch.rand(1, 3, resolution, resolution)
        assert isinstance(model.backbone, TimmBackbone)
        optional = optional_blocks(model.backbone.network, (images - model.mean) / model.std)
    assert model.origin is not None
    whole = outline(model.origin)
    prepare(whole)
    by_stage = stages(whole) if known is None else known
    stage_of = {layer: stage for stage, layers in by_stage.items() for layer in layers}
    blocks: dict[str, tuple[str, ...]] = dict.fromkeys(by_stage, ())
    for name in optional:
        inside = (stage_of[each] for each in stage_of if each.startswith(f"{BACKBONE}{name}."))
        if stage := next(inside, None):
            blocks[stage] += (name,)
    return Form(
        whole=whole,
        groups=tuple(bound(groups, whole)),
        stages=by_stage,
        touched=tuple(frozenset(touched_stages(group, stage_of)) for group in groups),
        blocks=blocks,
    )
