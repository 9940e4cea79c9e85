"""Tensors from files that anybody may have written; nothing in them runs, nothing is read twice."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchspaces.support.errors import QuerynasError, reason
from searchspaces.support.reading import check_file

if TYPE_CHECKING:
    from torch import Tensor

_MOST_BYTES = 16 << 30
_MOST_HEADER = 16 << 20  # bytes of the names, shapes and metadata of a safetensors file
_MOST_PICKLE = 64 << 20  # bytes of the names and shapes of a file of torch.save


def read_safetensors(
    path: Path, *, error: type[QuerynasError], remedy: str = "copy it again or write it again"
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file.

    Args:
        path: The file.
        error: The error to raise.
        remedy: What to do about it.

    Returns:
        Its metadata, and its tensors by name, in memory of their own.

    Raises:
        QuerynasError: The given kind of it: there is no such file, or it is damaged.
    """
    from safetensors import safe_open

    check_file(path, at_most=_MOST_BYTES, error=error, remedy=remedy)
    try:
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > _MOST_HEADER:
            raise ValueError(f"a header of {header} bytes")
        with safe_open(path, framework="pt") as file:
            # cloned, because the file's alignment in memory would change the last bits of outputs
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except Exception as problem:  # safetensors raises types of its own and torch's
        raise error(
            f"{path} is not a readable safetensors file ({reason(problem)}): {remedy}"
        ) from problem


def read_torch_file(
    path: Path,
    *,
    error: type[QuerynasError],
    device: Any = "cpu",
    remedy: str = "save its state dict with torch.save or safetensors",
) -> Any:
    """Read a file of `torch.save` that holds tensors and plain values; others are not unpickled.

    A file in the form that PyTorch has written since 2020 is mapped into memory, so that a tensor
    cannot reach beyond the file and a compressed archive is not blown up.

    Args:
        path: The file.
        error: The error to raise.
        device: Where the tensors go.
        remedy: What to do about it.

    Raises:
        QuerynasError: The given kind of it: there is no such file, it is damaged, or it holds
            other objects.
    """
    import torch

    check_file(path, at_most=_MOST_BYTES, error=error, remedy="check the path")
    try:
        archive = zipfile.is_zipfile(path)
        if archive:
            with zipfile.ZipFile(path) as listed:
                for member in listed.infolist():
                    if member.filename.endswith(".pkl") and member.file_size > _MOST_PICKLE:
                        raise ValueError(f"'{member.filename}' of {member.file_size} bytes")
        return torch.load(path, map_location=device, weights_only=True, mmap=archive)
    except Exception as problem:  # torch raises many types for a damaged file
        raise error(
            f"{path} cannot be read as plain tensors ({reason(problem)}): {remedy}"
        ) from problem
