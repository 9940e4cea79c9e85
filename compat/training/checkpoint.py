"""The state of an unfinished training, in one file."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.files import write_atomically
from searchspaces.support.problems import problem_of
from searchspaces.support.section import Versioned
from searchspaces.support.settings import bind_settings
from searchspaces.support.tensors import read_torch_file

_RESTART = "delete it to train from the start"


class Stateful(Protocol):
    """Something whose state can be kept and taken up again."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take up what `state_dict` returned."""


class _State(Versioned):
    settings: dict[str, JsonValue]
    epochs: int = Field(ge=0)
    parts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A file that keeps the named parts of a training between its epochs.

    Attributes:
        path: The file.
        settings: JSON-able values by name, to which the training is bound.
    """

    path: Path
    settings: Mapping[str, Any]

    def save(self, parts: Mapping[str, Stateful], epochs: int) -> None:
        """Keep the state of all parts after so many epochs."""
        content = {
            "version": _State.NEWEST,
            "settings": dict(self.settings),
            "epochs": epochs,
            "parts": {name: part.state_dict() for name, part in parts.items()},
        }
        write_atomically(self.path, lambda temporary: torch.save(content, temporary))

    def load(self, parts: Mapping[str, Stateful], device: torch.device) -> int:
        """Take up the state of all parts; return the epochs behind it, 0 where there is no file.

        Raises:
            CompatError: The file cannot be read, is of a later version, or belongs to a training
                under other settings or of other parts.
        """
        if not self.path.exists():
            return 0
        state = self._read(device)
        bind_settings(
            f"The training in '{self.path}'",
            state.settings,
            # a file without a version says less about them
            {k: v for k, v in self.settings.items() if state.version or k in state.settings},
            error=CompatError,
            remedy=f"{_RESTART}, or restore that setting",
        )
        try:
            for name, part in parts.items():
                if isinstance(part, Optimizer | LRScheduler):  # these take anything, and fail later
                    given = state.parts[name]
                    _check_form(given, _form(part, given), name)
                part.load_state_dict(state.parts[name])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._odd(reason(error)) from error
        return state.epochs

    def _read(self, device: torch.device) -> _State:
        content = read_torch_file(self.path, error=CompatError, device=device, remedy=_RESTART)
        try:
            old = isinstance(content, dict) and "version" not in content
            return _State.model_validate(_of_before(content) if old else content)
        except ValidationError as error:
            raise self._odd(problem_of(error, _State)) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise self._odd(reason(error)) from error

    def _odd(self, problem: str) -> CompatError:
        return CompatError(
            f"The checkpoint '{self.path}' is no state of this training ({problem}); {_RESTART}."
        )


def _form(part: Optimizer | LRScheduler, given: Mapping[str, Any]) -> dict[str, Any]:
    """A state as it is behind the first step, of those parameters that are given any."""
    if isinstance(part, LRScheduler):
        return part.state_dict()
    ahead = copy.deepcopy(part)
    for group in ahead.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    ahead.step()
    form = ahead.state_dict()
    return {**form, "state": {k: v for k, v in form["state"].items() if k in given["state"]}}


def _check_form(given: Any, own: Any, where: str) -> None:
    """Compare keys, lengths, shapes and kinds of values; a number may stand where there is none."""
    match own:
        case dict():
            alike = isinstance(given, dict) and given.keys() == own.keys()
            parts = [(given[key], own[key], key) for key in own] if alike else []
        case list() | tuple():
            alike = isinstance(given, list | tuple) and len(given) == len(own)
            parts = list(zip(given, own, range(len(own)), strict=True)) if alike else []
        case Tensor():
            alike, parts = isinstance(given, Tensor) and given.shape == own.shape, []
        case str():
            alike, parts = given == own, []
        case _:
            alike, parts = given is None or isinstance(given, bool | int | float), []
    if not alike:
        raise ValueError(f"{where} is of another form")
    for inner, own_inner, key in parts:
        _check_form(inner, own_inner, f"{where}.{key}")


def _of_before(content: dict[str, Any]) -> dict[str, Any]:
    """A file without a version: of an alignment, or of a gallery network."""
    if "key" in content:
        return {
            "settings": {"recipe and images": content["key"]},
            "epochs": content["epochs"],
            "parts": {
                "trained": content["trained"],
                "optimizer": content["optimizer"],
                "scheduler": content["schedule"],
            },
        }
    identity = content["identity"]
    both = ("model", "loss")
    return {
        "settings": {**identity["config"], "seed": identity["seed"], "images": identity["images"]},
        "epochs": content["epoch"],
        "parts": {
            "trained": {f"{part}.{k}": v for part in both for k, v in content[part].items()},
            "best": {name: content[name] for name in ("best", "best_epoch", "history", "weights")},
            **{name: content[name] for name in ("optimizer", "scheduler", "average")},
        },
    }
