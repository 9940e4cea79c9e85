"""The state of an unfinished training, in one file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from pydantic import Field, JsonValue, ValidationError, field_validator
from torch import Tensor

from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.files import write_atomically
from searchspaces.support.problems import problem_of
from searchspaces.support.renaming import under_new_names
from searchspaces.support.section import Versioned
from searchspaces.support.settings import bind_settings
from searchspaces.support.tensors import read_torch_file

_MISFITS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError)
_RENAMED = {"arch": "backbone", "size": "resolution", "learning_rate": "lr"}  # settings
_RESTART = "delete it to train from the start"


class Stateful(Protocol):
    """Something whose state can be kept and taken up again."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take up what `state_dict` returned."""


class _State(Versioned):
    NEWEST: ClassVar = 2

    settings: dict[str, JsonValue]
    epochs: int = Field(ge=0)
    parts: dict[str, dict[Any, Any]]

    @field_validator("settings", mode="before")
    @classmethod
    def _settings_of_today(cls, settings: Any) -> Any:
        return under_new_names(settings, _RENAMED)


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

    def load(self, parts: Mapping[str, Stateful], device: torch.device, *, epochs: int) -> int:
        """Take up the state of all parts; return the epochs behind it, 0 where there is no file.

        Args:
            parts: As for `save`.
            device: Where they lie.
            epochs: Those of the whole training.

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
            if state.epochs > epochs:
                raise ValueError(f"{state.epochs} epochs of {epochs}")
            if not all(_is_sound(tensor) for tensor in _tensors(state.parts)):
                raise ValueError("it holds numbers that are not finite")
            for name, part in parts.items():
                part.load_state_dict(state.parts[name])
        except _MISFITS as error:
            raise self._odd(reason(error)) from error
        return state.epochs

    def _read(self, device: torch.device) -> _State:
        content = read_torch_file(self.path, error=CompatError, device=device, remedy=_RESTART)
        try:
            old = isinstance(content, dict) and "version" not in content
            return _State.model_validate(_of_before(content) if old else content)
        except ValidationError as error:
            raise self._odd(problem_of(error, _State)) from error
        except _MISFITS as error:
            raise self._odd(reason(error)) from error

    def _odd(self, problem: str) -> CompatError:
        return CompatError(
            f"The checkpoint '{self.path}' is no state of this training ({problem}); {_RESTART}."
        )


def _tensors(content: Mapping[Any, Any]) -> Iterator[Tensor]:
    for value in content.values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value)


def _is_sound(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and bool(tensor.isfinite().all())


def _of_before(content: dict[str, Any]) -> dict[str, Any]:
    """A file without a version: of an alignment, or of a gallery network."""
    if "key" in content:
        return {
            "settings": {"recipe and images": content["key"]},
            "epochs": content["epochs"],
            "parts": {
                "trained": content["trained"],
                "descent": content["optimizer"]["state"],
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
            "average": content["average"],
            "descent": content["optimizer"]["state"],
        },
    }
