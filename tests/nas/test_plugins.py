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
from nas.study.trials import search

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
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path / "cache"))
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
    assert Run.open(folder / "run").config == run.config  # what one searched with is trusted


def saved_run(folder: Path, study: dict[str, Any], *names: str) -> Path:
    """A run folder that somebody else has made."""
    config = StudyConfig.model_validate(study | {"imports": names})
    Run(folder / "run", config).save()
    return folder / "run"


def test_somebody_elses_module_is_trusted_once_and_for_its_source(
    folder: Path, tiny_study: dict[str, Any]
) -> None:
    module = folder / "foreign_module.py"
    module.write_text("from pathlib import Path\nPath('executed').touch()")
    run = saved_run(folder, tiny_study, "foreign_module")
    with pytest.raises(StudyError, match=r"'foreign_module'.*querynas pareto .* --trust-imports"):
        Run.open(run)
    assert not Path("executed").exists()
    Run.open(run, trust_imports=True)
    assert Path("executed").exists()
    Run.open(run)
    module.write_text(module.read_text() + "\n# another version")
    with pytest.raises(StudyError, match="--trust-imports"):
        Run.open(run)


def test_an_installed_module_is_asked_for_too(folder: Path, tiny_study: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="'antigravity'"):
        Run.open(saved_run(folder, tiny_study, "antigravity"))


def test_a_run_is_made_with_one_module_and_opened_where_a_module_has_its_name(
    folder: Path, tiny_study: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "yaml.py").write_text("raise SystemExit('ran')")
    run = saved_run(folder, tiny_study, "yaml")
    with caplog.at_level(logging.WARNING, logger="querynas"):
        Run.open(run, trust_imports=True)
    assert "rename it" in caplog.text


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
