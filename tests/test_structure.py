"""The shape of the product: who may import whom, and what the wheel holds."""

import importlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest


def _load(file: str) -> ModuleType:
    """Import a benchmark, which lies in no package."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


structure = _load("benchmarks/structure.py")
SOURCE = structure.Source(Path())

PACKAGES = {
    "searchspaces": {"searchspaces"},
    "compat": {"compat", "searchspaces"},
    "pruning": {"pruning", "searchspaces"},
    "nas": {"nas", "pruning", "searchspaces", "compat"},
}
ROOMS = [
    "nas.cli",
    "nas.recipes",
    "nas.reporting",
    "nas.statistics",
    "nas.study",
    "nas.candidates",
    "nas.alignment",
    "nas.deployment",
    "nas.config",
    "nas.errors",
]
"""The rooms of nas; each may import those after it."""


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in SOURCE.imports.items()
        for target in targets
        if name.partition(".")[0] == package and target.partition(".")[0] not in PACKAGES[package]
    ]
    assert not wrong


def test_rooms_of_nas_import_one_way() -> None:
    rooms = {room for room in SOURCE.rooms if room.startswith("nas.")}
    assert rooms == set(ROOMS)
    wrong = [
        f"{name} imports {target}"
        for name, targets in SOURCE.imports.items()
        for target in targets
        if {SOURCE.room(name), SOURCE.room(target)} <= rooms
        and ROOMS.index(SOURCE.room(name)) > ROOMS.index(SOURCE.room(target))
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert structure.circles(SOURCE.imports) == []


@pytest.mark.parametrize("package", sorted(SOURCE.packages))
def test_a_package_names_what_is_public(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("room", sorted(each for each in SOURCE.packages if each[:3] == "nas"))
def test_no_public_name_hides_a_module(room: str) -> None:
    names = importlib.import_module(room).__all__
    assert [name for name in names if importlib.util.find_spec(f"{room}.{name}")] == []


FOLDER = re.compile(r"^\| (`[^|]+`) \| (.+) \|$", flags=re.MULTILINE)
QUOTED = re.compile(r"`(\w+)`")


def test_the_architecture_page_names_what_is_there() -> None:
    page = Path("docs/architecture.md").read_text()
    table = page.partition("## Folders")[2].partition("\n\n**")[0]
    rows = FOLDER.findall(table)
    assert {folder.strip("`").partition("/")[0] for folder, _ in rows} == set(PACKAGES)
    for folder, modules in rows:
        for name in QUOTED.findall(modules):
            place = Path(folder.strip("`")) / name
            assert place.is_dir() or place.with_suffix(".py").is_file(), place


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    sources = {
        "nas/__init__.py": "import lazy_loader",
        "nas/__init__.pyi": "from .room.low import thing",
        "nas/room/__init__.py": "from nas.room.low import thing",
        "nas/room/low.py": "thing = 1",
        "nas/high.py": "def inside():\n    from nas import thing",
        "nas/typed.py": "if TYPE_CHECKING:\n    import nas.high",
        "nas/side.py": "from . import typed, turn",
        "nas/turn.py": "from nas.side import anything",
    }
    for name, text in sources.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = structure.Source(tmp_path)
    assert found.imports == {
        "nas": set(),
        "nas.room": {"nas.room.low"},
        "nas.room.low": set(),
        "nas.high": {"nas.room.low"},
        "nas.typed": {"nas.high"},
        "nas.side": {"nas.typed", "nas.turn"},
        "nas.turn": {"nas.side"},
    }
    assert structure.circles(found.imports) == [{"nas.side", "nas.turn"}]
    assert structure.floors(found.imports) == 4


def test_nothing_is_unpickled_from_disk() -> None:
    for package in PACKAGES:
        for file in Path(package).rglob("*.py"):
            text = file.read_text()
            assert "weights_only=False" not in text, file
            assert "allow_pickle=True" not in text, file
            if "import pickle" in text:
                assert file.name == "revisitop.py"  # the restricted reader of gnd_*.pkl


def test_a_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    words = ("--no-isolation", "--wheel", "--outdir", str(tmp_path / "dist"), ".")
    build = [sys.executable, "-m", "build", *words]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("querynas-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    top = {p.name for p in (tmp_path / "site").iterdir() if not p.name.endswith(".dist-info")}
    assert top == set(PACKAGES)
    assert (tmp_path / "site/nas/reporting/templates/report.html.j2").is_file()
    for package in PACKAGES:
        assert (tmp_path / "site" / package / "py.typed").is_file()
    assert list((tmp_path / "site").glob("*.dist-info/licenses/LICENSE"))
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
