"""What a run folder says of itself: run.json, and study.yaml beside it."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field, ValidationError, field_validator

from nas.config.alignment import as_begun
from nas.config.study import PrunedConfig, RouteConfig, StudyConfig, parse_config
from nas.config.yaml_text import read_yaml
from nas.errors import StudyError
from searchspaces.support.files import write_atomically, write_json
from searchspaces.support.reading import read_json
from searchspaces.support.section import Versioned

FINGERPRINT = "gallery fingerprint"
"""The name of the gallery's fingerprint beside the settings that identify a run."""

_REMEDY = "restore it, or search again with another --out"


class RunFile(Versioned):
    """``run.json``.

    Attributes:
        identity: What must not change when the study is continued: settings of the study file, and
            the gallery's `FINGERPRINT`.
        storage: Optuna storage URL that the search was given; None for SQLite in the folder.
        study: Name of the Optuna study.
    """

    NEWEST: ClassVar = 3

    identity: dict[str, Any]
    storage: str | None = Field(max_length=4096)
    study: str = Field(min_length=1, max_length=512)

    @field_validator("identity")
    @classmethod
    def _with_a_gallery(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get(FINGERPRINT), str):
            raise StudyError(f"it has no '{FINGERPRINT}'")
        return value

    @property
    def gallery_fingerprint(self) -> str:
        """Fingerprint of the gallery space that the run was begun with, which may be gone."""
        fingerprint: str = self.identity[FINGERPRINT]
        return fingerprint

    def as_then(self, config: StudyConfig) -> StudyConfig:
        """Return a config that goes on as the run was begun, wherever it says nothing itself.

        Before version 2 slices of the space `timm-elastic` could not end at a level, and before
        version 3 the route `pruned` cut by magnitude.
        """
        config = as_begun(config, self.identity)
        spaces = {
            name: route.model_copy(update={"options": {**self._unsaid(route), **route.options}})
            for name, route in config.spaces.items()
        }
        return config.model_copy(update={"spaces": spaces})

    def _unsaid(self, route: RouteConfig) -> dict[str, Any]:
        """Options whose defaults are others since."""
        if self.version < 2 and not isinstance(route, PrunedConfig):
            return {"levels": False} if route.space == "timm-elastic" else {}
        if self.version < 3 and isinstance(route, PrunedConfig):
            return {"criteria": ["magnitude"]}
        return {}

    def settings(self) -> Mapping[str, Any]:
        """Return the identity, and the settings that did not exist yet when the run was begun."""
        own = {k: v for k, v in self.identity.items() if k != FINGERPRINT}
        with contextlib.suppress(ValidationError):  # a setting is gone: whoever compares says which
            own = self.as_then(StudyConfig.model_validate(own)).model_dump(mode="json")
        return {**own, FINGERPRINT: self.gallery_fingerprint}


def is_run(folder: Path) -> bool:
    """Whether a folder says of itself that it is a run."""
    return os.path.isfile(folder / "run.json")  # False for a path that no file can have


def read_run_file(folder: Path) -> RunFile:
    """Read ``run.json``.

    Raises:
        StudyError: The folder is no run folder, or the file is broken or of a newer version.
    """
    if not is_run(folder):
        raise StudyError(
            f"'{folder}' is no run folder (it has no run.json); give the --out folder of a "
            "`querynas search`."
        )
    return read_json(folder / "run.json", RunFile, error=StudyError, remedy=_REMEDY)


def read_study(folder: Path) -> StudyConfig:
    """Read ``study.yaml``, the study file as the search understood it.

    Raises:
        StudyError: It is missing or broken.
    """
    path = folder / "study.yaml"
    return parse_config(read_yaml(path, remedy=_REMEDY), path)


def write_run_file(folder: Path, file: RunFile, config: StudyConfig) -> None:
    """Write both files."""
    write_json(folder / "run.json", file)
    study = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomically(folder / "study.yaml", lambda path: path.write_text(study, "utf-8"))
