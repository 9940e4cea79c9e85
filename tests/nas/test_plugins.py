"""A user's own module: registered names work in a study file, and a missing module is named."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from compat.losses import list_losses
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.run import Run
from nas.study.search import search

MODULE = """
from compat.losses import register_loss

CALLS = []

@register_loss("plugged_in")
def plugged_in(query, target, batch, scale=1.0):
    CALLS.append(scale)
    return scale * (query - target).square().mean()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "plugged_in_losses.py").write_text(MODULE)
    return tmp_path


def test_a_study_file_imports_the_users_losses(folder: Path, tiny_study: dict[str, Any]) -> None:
    content = tiny_study | {
        "imports": ["plugged_in_losses"],
        "loss": {"plugged_in": {"weight": 1.0, "scale": 3.0}},
        "spaces": {"slices": tiny_study["spaces"]["slices"]},
        "trials": 2,
        "finish": {"models": 0},
    }
    run = search(StudyConfig.model_validate(content), folder / "run")
    assert "plugged_in" in list_losses()
    assert set(sys.modules["plugged_in_losses"].CALLS) == {3.0}
    assert len(run.front()) > 0


def test_a_module_that_is_missing_is_named(
    folder: Path, tiny_study: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = StudyConfig.model_validate(tiny_study | {"imports": ["no_such_module"]})
    with pytest.raises(StudyError, match=r"'no_such_module'.*'imports'.*folder that holds it"):
        search(config, folder / "run")
    Run(folder / "run", config).save()
    with caplog.at_level(logging.WARNING, logger="querynas"):
        assert Run.open(folder / "run").config == config
    assert "no_such_module" in caplog.text
