"""Which channels of the uncut network are left in a query model that was cut."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

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
    noted = _noted(model).items()
    return {name: {side: left.tolist() for side, left in sides.items()} for name, sides in noted}


def record_kept(
    model: QueryModel, gone: Mapping[tuple[str, str], tuple[int, Collection[int]]]
) -> None:
    """Note that a cut took channels away.

    Args:
        model: The model that was cut.
        gone: For each layer's name and side the number of channels before, and which ones went.
    """
    for (name, side), (before, positions) in gone.items():
        if positions:
            earlier = _sides(model, name).get(_side(side), np.arange(before))
            _sides(model, name)[_side(side)] = np.delete(earlier, list(positions))


def record_order(model: QueryModel, name: str, side: str, order: Sequence[int]) -> None:
    """Note that the channels of a layer's side were put in another order.

    Args:
        model: The model whose channels moved.
        name: The layer.
        side: "in", or any other word for its outputs.
        order: For every place the channel that stands there now.
    """
    earlier = _sides(model, name).get(_side(side), np.arange(len(order)))
    _sides(model, name)[_side(side)] = earlier[list(order)]


def set_kept(model: QueryModel, kept: Kept) -> None:
    """Note all that is left, as `kept_channels` returns it."""
    vars(model)[_KEPT] = {
        name: {side: np.array(left, dtype=np.int64) for side, left in sides.items()}
        for name, sides in kept.items()
    }


def _noted(model: QueryModel) -> dict[str, dict[str, np.ndarray]]:
    """What is left of every layer's sides; arrays, which are copied fast with the model."""
    noted: dict[str, dict[str, np.ndarray]] = vars(model).setdefault(_KEPT, {})
    return noted


def _sides(model: QueryModel, name: str) -> dict[str, np.ndarray]:
    return _noted(model).setdefault(name, {})


def _side(word: str) -> str:
    return "in" if word == "in" else "out"
