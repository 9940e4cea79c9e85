"""Save and load a query model whose layers no longer have their family's widths, without pickle.

One safetensors file holds everything: all parameters and buffers, and, as JSON in its header, how
to make the uncut network, which plain attributes of its modules differ, and which of the uncut
network's channels are left in the layers that were cut. Loading needs neither torch-pruning nor the
training code, believes nothing in the file, and takes no more memory than the file has tensors.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from pruning.errors import PruningError
from pruning.families import forget, prepare
from pruning.kept import Kept, kept_channels, set_kept
from searchspaces import QueryModel, outline
from searchspaces.support.errors import reason
from searchspaces.support.files import write_atomically
from searchspaces.support.problems import problem_of
from searchspaces.support.reading import check_json
from searchspaces.support.section import Versioned
from searchspaces.support.tensors import read_safetensors

HEADER = "querynas.model"
_REMEDY = "copy it again or export the model again"

Scalar = bool | int | float | str
Width = Annotated[int, Field(gt=0, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Channel = Annotated[int, Field(ge=0, strict=True)]

_OF_TORCH = (
    *("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features"),
    *("normalized_shape", "num_channels", "num_groups", "num_parameters", "embedding_dim"),
    *("embed_dim", "kdim", "vdim", "input_size", "hidden_size"),
)
_OF_TIMM = (
    *("head_hidden_size", "head_dim", "num_heads", "attn_dim", "fused_attn", "in_chs", "out_chs"),
    *("dim", "key_dim", "val_dim", "key_attn_dim", "val_attn_dim", "out_dim"),
)
_CHANGED_BY_CUTS = frozenset(_OF_TORCH + _OF_TIMM)


class _Recipe(Versioned):
    """What the header says beside the tensors.

    Attributes:
        origin: How to make the uncut network, for `searchspaces.rebuild`.
        modules: By name of a module, its attributes that a cut has changed.
        kept: Channels of the uncut network that are left, as `kept_channels` returns them; files of
            before say nothing of it.
    """

    NEWEST: ClassVar = 2

    origin: dict[str, Any]
    modules: dict[str, dict[str, Switch | Width | tuple[Width, ...]]]
    kept: dict[str, dict[str, list[Channel]]] = Field({})


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
        "version": _Recipe.NEWEST,
        "origin": dict(model.origin),
        "modules": _differences(model, outline(model.origin)),
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
        PruningError: If the file is missing, broken, of a later version, or holds another network
            than it says, or one that does not embed an image.
    """
    path = Path(path)
    metadata, tensors = read_safetensors(path, error=PruningError, remedy=_REMEDY)
    recipe = _recipe(path, metadata)
    try:
        model = outline(recipe.origin)
    except Exception as error:  # spaces outside this package raise types of their own
        raise PruningError(f"the network in {path} cannot be made here: {reason(error)}") from error
    if "projection.linear.bias" not in tensors:  # as files of before
        model.projection.be_linear()
    forget(model)
    prepare(model)
    _set_tensors(path, model, tensors)
    _set_attributes(path, model, recipe.modules)
    _check_kept(path, model, recipe.kept)
    set_kept(model, recipe.kept)
    _check_outputs(path, model.eval())
    return model


def _recipe(path: Path, metadata: Mapping[str, str]) -> _Recipe:
    header = metadata.get(HEADER)
    if header is None:
        raise PruningError(f"{path} has no '{HEADER}' header: it was not written by save_model")
    try:
        recipe = TypeAdapter(_Recipe).validate_json(header)
        check_json(header)
    except ValidationError as error:
        raise PruningError(
            f"the header of {path} cannot be read: {problem_of(error, _Recipe)}; {_REMEDY}"
        ) from error
    except ValueError as error:
        raise PruningError(
            f"the header of {path} cannot be read: {reason(error)}; {_REMEDY}"
        ) from error
    return recipe


def _set_tensors(path: Path, model: QueryModel, tensors: Mapping[str, Tensor]) -> None:
    """Give an outline its weights: those of the uncut network, or parts of them."""
    whole = dict(_tensors(model))
    if odd := sorted(whole.keys() ^ tensors.keys()):
        raise PruningError(
            f"{path} and the network it names differ in '{odd[0]}': it was written with other "
            "versions of querynas or timm"
        )
    modules = dict(model.named_modules())
    for name, uncut in whole.items():
        tensor = tensors[name]
        if not _is_part(tensor, uncut):
            raise PruningError(
                f"'{name}' in {path} is {tensor.dtype} {tuple(tensor.shape)}, which is no part of "
                f"the network's {uncut.dtype} {tuple(uncut.shape)}; {_REMEDY}"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise PruningError(f"'{name}' in {path} has values that are not finite; {_REMEDY}")
        owner, _, leaf = name.rpartition(".")
        fresh = nn.Parameter(tensor) if isinstance(uncut, nn.Parameter) else tensor
        setattr(modules[owner], leaf, fresh)


def _is_part(tensor: Tensor, whole: Tensor) -> bool:
    return (
        tensor.dtype == whole.dtype
        and tensor.ndim == whole.ndim
        and all(0 < a <= b or a == b for a, b in zip(tensor.shape, whole.shape, strict=True))
    )


def _set_attributes(
    path: Path, model: QueryModel, changed: Mapping[str, Mapping[str, Any]]
) -> None:
    """Set attributes that cuts change, where they are, to a value of the same kind, no larger."""
    modules = dict(model.named_modules())
    for name, attributes in changed.items():
        known = _attributes(modules[name]) if name in modules else {}
        for attribute, value in attributes.items():
            before = known.get(attribute)
            if attribute not in _CHANGED_BY_CUTS or not _is_narrower(value, before):
                raise PruningError(
                    f"the header of {path} sets '{name}.{attribute}' to {value!r} from {before!r}, "
                    f"which no cut does; {_REMEDY}"
                )
            setattr(modules[name], attribute, value)


def _is_narrower(value: Any, before: Any) -> bool:
    if isinstance(value, tuple) and isinstance(before, tuple) and len(value) == len(before):
        return all(map(_is_narrower, value, before))
    return type(value) is type(before) and (isinstance(value, bool) or value <= before)


def _check_kept(path: Path, model: QueryModel, kept: Kept) -> None:
    """Compare the channels that are said to be left with the layers as they are."""
    modules, tensors = dict(model.named_modules()), dict(_tensors(model))
    for name, sides in kept.items():
        layer = modules.get(name, tensors.get(name))
        for side, channels in sides.items():
            if len(channels) not in _widths(layer, side) or len({*channels}) < len(channels):
                raise PruningError(
                    f"the header of {path} says that {len(channels)} channels are left at '{name}' "
                    f"({side}), where there are others; {_REMEDY}"
                )


def _widths(layer: Any, side: str) -> Sequence[int]:
    """How many channels a layer has at a side; a bare parameter does not say in which dimension."""
    if isinstance(layer, Tensor):
        return layer.shape
    weight = getattr(layer, "weight", None)
    match side:
        case "in":
            return [getattr(layer, "in_channels", getattr(layer, "in_features", 0))]
        case "out" if isinstance(weight, Tensor) and weight.ndim:
            return [len(weight)]
    return []


@torch.no_grad()
def _check_outputs(path: Path, model: QueryModel) -> None:
    try:
        found = model(torch.zeros(1, 3, model.resolution, model.resolution))
    except Exception as error:  # whatever the layers say to widths that do not fit each other
        raise PruningError(
            f"the network in {path} does not run ({reason(error)}); {_REMEDY}"
        ) from error
    if found.shape != (1, model.dimension) or not found.isfinite().all():
        raise PruningError(f"the network in {path} gives no finite embedding; {_REMEDY}")


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
