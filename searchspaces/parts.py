"""Where in a query model the multiply-accumulates are spent."""

import re

from searchspaces import QueryModel, macs_by_layer

_MOST_PARTS = 16
_BLOCK = re.compile(r"\w+(\.\d+)*")  # "stages.1.0" of "stages.1.0.expand.conv"
_STAGE = re.compile(r"\w+(\.\d+)?")


def macs_by_part(model: QueryModel) -> dict[str, int]:
    """Sum the MACs of a query model over its blocks, or its stages if it has many blocks.

    The order is the network's, and the sum is that of `searchspaces.count_macs`.
    """
    layers = {_shorter(name): macs for name, macs in macs_by_layer(model, model.resolution).items()}
    blocks = _grouped(layers, _BLOCK)
    return blocks if len(blocks) <= _MOST_PARTS else _grouped(layers, _STAGE)


def _grouped(layers: dict[str, int], level: re.Pattern[str]) -> dict[str, int]:
    parts: dict[str, int] = {}
    for name, macs in layers.items():
        match = level.match(name)
        part = match[0] if match else name
        parts[part] = parts.get(part, 0) + macs
    return parts


def _shorter(name: str) -> str:
    return name.removeprefix("backbone.").removeprefix("network.") or "input"
