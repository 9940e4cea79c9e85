"""Blocks of a timm network that are left out."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from searchspaces.backbone import TimmBackbone
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import QueryModel


class Skipped(nn.Module):
    """Stands where a block was left out, and hands on what the block was given."""

    def forward(self, maps: Tensor, *_: Any, **__: Any) -> Tensor:
        return maps


def leave_out(model: QueryModel, blocks: Iterable[str]) -> None:
    """Leave blocks out of a timm network, in place; its `origin` names them from then on.

    Args:
        model: A query model as `timm_query_model` makes it.
        blocks: Names of modules of the timm network ("layer2.1") that leave the shape of their
            input as it is.

    Raises:
        SearchSpaceError: If the network has no such block.
    """
    blocks = list(blocks)
    if not blocks:
        return
    assert isinstance(model.backbone, TimmBackbone)
    assert model.origin is not None
    known = dict(model.origin["timm"])
    for name in blocks:
        parent, _, leaf = name.rpartition(".")
        try:
            owner = model.backbone.network.get_submodule(parent)
            owner.get_submodule(leaf)
        except AttributeError:
            owner = None
        if not name or owner is None:
            raise SearchSpaceError(
                f"'{known['name']}' has no block '{name}' that could be left out: "
                "save the model again"
            )
        setattr(owner, leaf, Skipped())
    model.origin = {"timm": {**known, "left_out": [*known.get("left_out", ()), *blocks]}}
