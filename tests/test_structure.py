"""The shape of the product: who may import whom, and what the wheel holds."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = {
    "searchspaces": {"searchspaces"},
    "compat": {"compat", "searchspaces"},
    "pruning": {"pruning", "searchspaces"},
    "nas": {"nas", "pruning", "searchspaces", "compat"},
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    for file in Path(package).rglob("*.py"):
        foreign = (imported(file) & set(PACKAGES)) - PACKAGES[package]
        assert not foreign, f"{file} imports {foreign}"


def test_nothing_is_unpickled_from_disk() -> None:
    for package in PACKAGES:
        for file in Path(package).rglob("*.py"):
            text = file.read_text()
            assert "weights_only=False" not in text, file
            assert "allow_pickle=True" not in text, file
            if "import pickle" in text:
                assert file.name == "revisitop.py"  # the restricted reader of gnd_*.pkl


def test_a_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), "."]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("querynas-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    top = {p.name for p in (tmp_path / "site").iterdir() if not p.name.endswith(".dist-info")}
    assert top == set(PACKAGES)
    assert (tmp_path / "site/nas/reporting/templates/report.html.j2").is_file()
    (tmp_path / "empty").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import compat, nas, pruning, searchspaces\n"
        "from nas import export, report, search\n"
        "print([m.__file__ for m in (compat, nas, pruning, searchspaces)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "empty", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path / "site")) == 4
