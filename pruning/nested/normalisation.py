"""What normalisation layers hold, and networks without weights of their own."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from searchspaces import QueryModel


def norm_parameters(model: nn.Module) -> frozenset[str]:
    """Names of the scales and offsets of all normalisation layers."""
    return frozenset(
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm)
        for leaf, parameter in module.named_parameters(recurse=False)
        if parameter is not None
    )


def shell(model: QueryModel, shared: Iterable[str]) -> QueryModel:
    """Take from a model, in place, the parameters that it will be lent at every call.

    What is left is its own: BatchNorm statistics, and the parameters that are not shared. PyTorch
    knows a parameter that is None, so a shell is moved, copied and stored like any module; it runs
    in `torch.func.functional_call` with the shared parameters given.
    """
    for name in shared:
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_parameter(leaf, None)
    return model
