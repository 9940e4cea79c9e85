"""Which channels of the uncut network are left in a query model that was cut."""

import copy
from collections.abc import Collection, Mapping, Sequence

from searchspaces import QueryModel

Kept = dict[str, dict[str, list[int]]]

_KEPT = "kept_channels"


def kept_channels(model: QueryModel) -> Kept:
    """Return which channels of the uncut network are left, also after several cuts and a reload.

    Returns:
        By the name of each layer that was cut, {"in": [...], "out": [...]} with indices into the
        uncut layer's channels. A side that is whole is left out. Norms, depthwise convolutions and
        bare parameters have "out" only.
    """
    return copy.deepcopy(vars(model).get(_KEPT, {}))


def record_kept(
    model: QueryModel, gone: Mapping[tuple[str, str], tuple[int, Collection[int]]]
) -> None:
    """Note that a cut took channels away.

    Args:
        model: The model that was cut.
        gone: For each layer's name and side the number of channels before, and which ones went.
    """
    kept = kept_channels(model)
    for (name, side), (before, positions) in gone.items():
        if positions:
            sides = kept.setdefault(name, {})
            side = "in" if side == "in" else "out"
            earlier = sides.get(side, range(before))
            sides[side] = [each for at, each in enumerate(earlier) if at not in positions]
    set_kept(model, kept)


def record_order(model: QueryModel, name: str, side: str, order: Sequence[int]) -> None:
    """Note that the channels of a layer's side were put in another order.

    Args:
        model: The model whose channels moved.
        name: The layer.
        side: "in", or any other word for its outputs.
        order: For every place the channel that stands there now.
    """
    kept = kept_channels(model)
    sides = kept.setdefault(name, {})
    side = "in" if side == "in" else "out"
    earlier = sides.get(side, range(len(order)))
    sides[side] = [earlier[at] for at in order]
    set_kept(model, kept)


def set_kept(model: QueryModel, kept: Kept) -> None:
    """Note all that is left, as `kept_channels` returns it."""
    vars(model)[_KEPT] = kept
