"""A user's module is found by its file; nothing else in its folder can be imported."""

import importlib
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchspaces.support.modules import import_module, module_digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_module_is_found_by_its_file_and_its_neighbours_are_not(folder: Path) -> None:
    (folder / "tried_losses.py").write_text("import tried_helpers\nWIDTH = tried_helpers.WIDTH")
    (folder / "tried_helpers.py").write_text("WIDTH = 3")
    path = list(sys.path)
    with pytest.raises(ImportError, match="tried_helpers"):
        import_module("tried_losses")
    import_module("tried_helpers")  # a helper that is named as well is found
    assert import_module("tried_losses").WIDTH == 3
    assert sys.path == path


def test_a_package_brings_its_parts(folder: Path) -> None:
    (folder / "tried_parts" / "inner").mkdir(parents=True)
    for part, text in (
        ("__init__", "from tried_parts import widths"),
        ("widths", "from .inner.deep import WIDTH"),
        ("inner/__init__", ""),
        ("inner/deep", "WIDTH = 5"),
    ):
        (folder / "tried_parts" / f"{part}.py").write_text(text)
    assert import_module("tried_parts.widths").WIDTH == 5


def test_bytecode_beside_the_source_is_not_run(folder: Path) -> None:
    source = folder / "tried_bytecode.py"
    source.write_text("VALUE = 'evil'")
    compiled = importlib.util.cache_from_source(str(source))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), compiled, invalidation_mode=mode)
    source.write_text("VALUE = 'good'")
    assert import_module("tried_bytecode").VALUE == "good"


def test_a_file_with_the_name_of_an_installed_module_is_refused(folder: Path) -> None:
    for name in ("yaml", "sys", "json"):
        (folder / f"{name}.py").write_text("raise SystemExit('ran')")
        with pytest.raises(ImportError, match=f"'{name}.py' is here, but .* has that name too"):
            import_module(name)
    (folder / "json.py").unlink()
    assert import_module("json.decoder").__name__ == "json.decoder"


@pytest.mark.parametrize("name", ["", "a b", "a..b", "../evil", "a.", "1a", "a-b", "a\0b"])
def test_what_is_no_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ImportError, match="is no dotted name"):
        import_module(name)


def test_the_digest_is_of_the_source_and_imports_nothing(folder: Path) -> None:
    (folder / "tried_digest").mkdir()
    (folder / "tried_digest" / "__init__.py").write_text("raise SystemExit('ran')")
    (folder / "tried_digest" / "part.py").write_text("")
    first = module_digest("tried_digest")
    assert module_digest("tried_digest") == first
    (folder / "tried_digest" / "part.py").write_text("import os")
    assert module_digest("tried_digest") != first
    assert module_digest("json") != module_digest("csv")
    with pytest.raises(ImportError, match=r"no 'tried_nothing\.py' here"):
        module_digest("tried_nothing")
