"""Weights that somebody else trained, put into a network of the same architecture."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from searchspaces.support.errors import QuerynasError
from searchspaces.support.naming import did_you_mean
from searchspaces.support.tensors import read_safetensors, read_torch_file

_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")  # as timm's scripts prefer them
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_COUNTER = "num_batches_tracked"  # that other frameworks and old files lack; nothing depends on it
_MOST_TENSORS = 100_000


def load_checkpoint(network: nn.Module, path: Path, *, error: type[QuerynasError]) -> None:
    """Give a timm network, or any other, the weights of a checkpoint, all of them.

    Batch counters may be missing, names may have the prefix of a wrapper ("module."), the state
    dict may lie under the name that training scripts give it, and the file may have the classifier
    that the network's `pretrained_cfg` names.

    Args:
        network: The network.
        path: A state dict, safetensors or a weights-only torch file.
        error: The error to raise.

    Raises:
        QuerynasError: The given kind of it: there is no such file, it cannot be read, or it is of
            another architecture; names the tensor.
    """
    what = f"the checkpoint {path}"
    heads = _classifiers(getattr(network, "pretrained_cfg", {}))
    load_tensors(network, _state_dict(path, error), what, heads=heads, error=error)


def load_tensors(
    network: nn.Module,
    tensors: Mapping[str, Any],
    what: str,
    *,
    heads: Iterable[str] = (),
    error: type[QuerynasError],
) -> None:
    """Give a network the weights of a state dict, all of them; batch counters may be missing.

    Args:
        network: The network.
        tensors: By name; values of other kinds are refused.
        what: What the tensors are called in messages.
        heads: Modules that the network lacks and that may be left over.
        error: The error to raise.

    Raises:
        QuerynasError: The given kind of it: they are of another architecture; names the tensor.
    """
    expected = network.state_dict()
    used: dict[str, Tensor] = {}
    for name, own in expected.items():
        if name in tensors:
            used[name] = _fitting(tensors[name], own, f"{name!r} of {what}", error)
        elif not name.endswith(_COUNTER):
            raise error(
                f"{what} has no tensor {name!r}{did_you_mean(name, tensors)}: it is of another "
                "architecture, give the weights of this very network"
            )
    for name in tensors:
        if name not in expected and not name.startswith(tuple(f"{head}." for head in heads)):
            raise error(
                f"{what} has a tensor {name!r} that the network lacks: it is of another "
                "architecture, give the weights of this very network"
            )
    network.load_state_dict(expected | used)


def _classifiers(config: Mapping[str, Any]) -> tuple[str, ...]:
    heads = config.get("classifier") or ()
    return (heads,) if isinstance(heads, str) else tuple(heads)


def _state_dict(path: Path, error: type[QuerynasError]) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return dict(_plainly_named(read_safetensors(path, error=error)[1]))
    content = read_torch_file(path, error=error)
    while isinstance(content, dict) and (nest := _nest(content)):
        content = content[nest]
    if not isinstance(content, dict) or len(content) > _MOST_TENSORS:
        raise error(
            f"the checkpoint {path} holds {_words(content)} instead of a state dict: save that of "
            "the network with torch.save or safetensors"
        )
    return dict(_plainly_named(content))


def _nest(content: Mapping[Any, Any]) -> str | None:
    return next((name for name in _NESTS if isinstance(content.get(name), dict)), None)


def _plainly_named(tensors: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for name, tensor in tensors.items():
        plain = str(name)
        for prefix in _PREFIXES:
            plain = plain.removeprefix(prefix)
        yield plain, tensor


def _fitting(given: Any, own: Tensor, what: str, error: type[QuerynasError]) -> Tensor:
    if not isinstance(given, Tensor) or given.layout != torch.strided or given.is_quantized:
        raise error(f"{what} is {_words(given)}, expected a plain tensor")
    if given.shape != own.shape:
        raise error(
            f"{what} has shape {tuple(given.shape)}, expected {tuple(own.shape)}: it is of another "
            "architecture"
        )
    if given.is_floating_point() != own.is_floating_point() or given.is_complex():
        raise error(f"{what} is of type {given.dtype}, expected {own.dtype}")
    if own.is_floating_point() and not given.isfinite().all():
        raise error(f"{what} has values that are not finite: train it again or take another")
    return given


def _words(value: Any) -> str:
    return f"a {value.layout} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
