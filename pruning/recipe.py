"""Save and load a query model whose layers no longer have their family's widths, without pickle.

One safetensors file holds everything: all parameters and buffers, and, as JSON in its header, how
to make the uncut network, which plain attributes of its modules differ, and which of the uncut
network's channels are left in the layers that were cut. Loading needs neither torch-pruning nor the
training code.
"""

import copy
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pruning.errors import PruningError
from pruning.families import prepare
from searchspaces import QueryModel, SearchSpaceError, rebuild
from searchspaces.support.files import write_atomically

HEADER = "querynas.model"
_KEPT = "kept_channels"
Scalar = bool | int | float | str


def kept_channels(model: QueryModel) -> dict[str, dict[str, list[int]]]:
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
    vars(model)[_KEPT] = kept


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
    vars(model)[_KEPT] = kept


def save_model(model: QueryModel, path: str | Path) -> None:
    """Write a query model, cut or not, to one safetensors file.

    Args:
        model: A model with an `origin`.
        path: The file; an existing one is replaced at once.

    Raises:
        PruningError: If the model does not say where it comes from, or has modules that its origin
            does not have.
    """
    if model.origin is None:
        raise PruningError(
            "a query model without an origin cannot be saved: make it with timm_query_model or "
            "with a search space"
        )
    recipe = {
        "origin": dict(model.origin),
        "modules": _differences(model, rebuild(model.origin)),
        "kept": kept_channels(model),
    }
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in _tensors(model)}
    header = {HEADER: json.dumps(recipe, sort_keys=True)}
    write_atomically(Path(path), lambda file: save_file(tensors, file, metadata=header))


def load_model(path: str | Path) -> QueryModel:
    """Read what `save_model` wrote; outputs are bit-equal to those of the saved model.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        PruningError: If the file is missing, broken, or holds another network.
    """
    recipe, tensors = _read(Path(path))
    try:
        model = rebuild(recipe["origin"])
    except SearchSpaceError as error:
        raise PruningError(f"the network in {path} cannot be made here: {error}") from error
    prepare(model)
    modules = dict(model.named_modules())
    known = {name for name, _ in _tensors(model)}
    if known != tensors.keys() or not recipe["modules"].keys() <= modules.keys():
        odd = sorted(known ^ tensors.keys() | recipe["modules"].keys() - modules.keys())
        raise PruningError(
            f"{path} and the network it names differ in '{odd[0]}': it was written with other "
            "versions of querynas or timm"
        )
    for name, attributes in recipe["modules"].items():
        for attribute, value in attributes.items():
            setattr(modules[name], attribute, tuple(value) if isinstance(value, list) else value)
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = modules[owner]
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor)
        else:
            module._buffers[leaf] = tensor
    vars(model)[_KEPT] = recipe.get("kept", {})  # older files do not say
    return model.eval()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            # cloned, because the file's alignment in memory would change the last bits of outputs
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PruningError(f"{path} is not a readable safetensors file: {error}") from error
    if header is None:
        raise PruningError(f"{path} has no '{HEADER}' header: it was not written by save_model")
    return json.loads(header), tensors


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _differences(model: nn.Module, uncut: nn.Module) -> dict[str, dict[str, Any]]:
    """Plain attributes of modules that are not what they are in the uncut network."""
    originals = dict(uncut.named_modules())
    differences = {}
    for name, module in model.named_modules():
        if name not in originals:
            raise PruningError(
                f"the module '{name}' is not in the network that the model's origin describes, "
                "so the model cannot be saved"
            )
        before = _attributes(originals[name])
        changed = {k: v for k, v in _attributes(module).items() if k in before and v != before[k]}
        if changed:
            differences[name] = changed
    return differences


def _attributes(module: nn.Module) -> Mapping[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and _plain(value)
    }


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_plain(each) for each in value)
    return isinstance(value, Scalar)
