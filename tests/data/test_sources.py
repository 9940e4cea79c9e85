"""One text opens any set; mistakes in it are answered with near matches."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pictures import class_folders, picture

from compat.data import open_data
from compat.errors import CompatError


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("facade", "no data at .*did you mean 'facades'"),
        ("facades:clases=3", "unknown field 'clases'.*did you mean 'classes'"),
        ("facades:classes=many", "'classes' is 'many'"),
        ("facades:classes", "expects classes=VALUE once"),
        ("facades:seed=1,seed=2", "expects seed=VALUE once"),
        ("facades:images=1", "'images' is '1'"),
        ("facades:size=4", "'size' is '4'"),
        ("omniglot:rot=x", "unknown field 'rot'.*did you mean 'root'"),
        ("omniglot:download=perhaps", "'download' is 'perhaps'"),
        ("revisitop:gnd=x.pkl", "field 'images' is missing"),
        ("brids", "no data at .*did you mean 'birds'"),
        ("birds/wren/000.png", "is no manifest"),
    ],
)
def test_mistakes(tmp_path: Path, spec: Any, message: str) -> None:
    class_folders(tmp_path / "birds", {"wren": 2})
    with pytest.raises(CompatError, match=message):
        open_data(spec, root=tmp_path)


def test_relative_paths_start_at_root_and_specs_at_the_top(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", {"wren": 2})
    images = open_data("birds", root=tmp_path)
    assert images.spec == str((tmp_path / "birds").resolve())


def test_a_folder_called_like_a_built_in_set(tmp_path: Path) -> None:
    class_folders(tmp_path / "omniglot", {"wren": 2})
    assert open_data("./omniglot", root=tmp_path).classes == ("wren",)
    assert open_data(Path("omniglot"), root=tmp_path).classes == ("wren",)


def test_a_folder_that_ends_like_a_table(tmp_path: Path) -> None:
    picture(tmp_path / "birds.csv" / "wren" / "1.png", 1)
    picture(tmp_path / "birds.csv" / "wren" / "2.png", 2)
    assert open_data(tmp_path / "birds.csv").classes == ("wren",)


def test_importing_is_light() -> None:
    code = "import sys, compat.data; print({'torch', 'pandas', 'torchvision'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
