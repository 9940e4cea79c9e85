"""The examples of CONTRIBUTING.md work as they stand, and its habits are set up."""

import random
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import compat.gallery.vector_files
import compat.losses.base
import searchspaces.space
from compat.gallery import import_gallery
from searchspaces import count_macs, create_space
from searchspaces.testing import check_space

EXAMPLES = re.findall(r"```python\n(.*?)```", Path("CONTRIBUTING.md").read_text(), flags=re.DOTALL)
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]


def example(part: str) -> str:
    (found,) = (each for each in EXAMPLES if part in each)
    return found


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples' modules can be imported; what they register is gone after the test."""
    for part in ("losses_of_mine.py", "spaces_of_mine.py"):
        (tmp_path / part).write_text(example(part))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(compat.losses.base, "_LOSSES", dict(compat.losses.base._LOSSES))
    monkeypatch.setattr(searchspaces.space, "_REGISTRY", dict(searchspaces.space._REGISTRY))
    yield
    for name in ("losses_of_mine", "spaces_of_mine"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("modules")
def test_the_loss_passes_its_test() -> None:
    exec(example("check_loss"), {})
    assert "powers" in compat.losses.base.list_losses()


@pytest.mark.usefixtures("modules")
def test_the_space_counts_what_it_builds() -> None:
    exec("import spaces_of_mine", {})
    space = create_space("patches", widths=[8, 24])
    assert space.size() == 2
    check_space(space)
    architecture = space.sample(random.Random(0))
    assert count_macs(space.build(architecture, 16), 32) == space.macs(architecture, 16)


def test_the_gallery_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = dict(vars(compat.gallery.vector_files))
    exec(example("_open_txt"), names)
    readers = {**compat.gallery.vector_files._READERS, ".txt": names["_open_txt"]}
    monkeypatch.setattr(compat.gallery.vector_files, "_READERS", readers)
    (tmp_path / "vectors.txt").write_text("3 4\n0 2\n")
    gallery = import_gallery(tmp_path / "vectors.txt", tmp_path / "gallery")
    np.testing.assert_allclose(gallery.vectors, [[0.6, 0.8], [0, 1]], atol=1e-6)


def test_hooks_run_what_the_environment_has() -> None:
    (local,) = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"]
    programs = {Path(hook["entry"].split()[0]).name for hook in local["hooks"]}
    assert programs == {"ruff", "mypy"}
    assert programs <= set(PROJECT["optional-dependencies"]["dev"])


def test_the_licence_is_the_declared_one() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = Path("LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0" in text
