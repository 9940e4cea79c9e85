"""Single files and commands of the kind that people really have, each with its sentence."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import yaml
from PIL import Image

from compat.data import open_data
from compat.errors import CompatError
from compat.gallery import import_gallery
from nas.candidates.routes import create_route
from nas.config.objectives import BudgetConfig
from nas.config.study import PrunedConfig, StudyConfig, load_config
from nas.errors import StudyError
from nas.statistics.repeats import repeated
from nas.study.run import Run
from nas.study.trials import check_reach
from nas.study.warm_start import proposals
from pruning import PruningError, load_model
from searchspaces.support.errors import LONGEST, QuerynasError
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section

Cli = Callable[..., tuple[int, str, str]]

FORMATS = Path(__file__).parent.parent / "formats"
sys.path.append(str(FORMATS))  # timm knows the small network of these folders by this module
import tiny_backbone  # noqa: E402, F401


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run, a gallery and a study file in it."""
    shutil.copytree(FORMATS / "unversioned", tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def sentence(open: Callable[[], object], *, kind: type[QuerynasError] = QuerynasError) -> str:
    with pytest.raises(kind) as caught:
        open()
    assert len(str(caught.value)) <= LONGEST
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{}", '{"study": "ü"}'.encode("latin-1")])
def test_a_run_file_that_is_empty_or_no_utf8(old: Path, content: bytes) -> None:
    (old / "run" / "run.json").write_bytes(content)
    assert "run.json' cannot be read" in sentence(lambda: Run.open("run"), kind=StudyError)


@pytest.mark.parametrize("header", [[], [1, 2], "text", None])
def test_a_safetensors_header_that_is_no_mapping(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    assert "model.safetensors" in sentence(lambda: load_model(path), kind=PruningError)


def test_repeats_of_a_trial_that_the_run_has_not(old: Path) -> None:
    file = old / "run" / "repeats.json"
    content = json.loads(file.read_bytes())
    content[0]["trial"] = 77
    file.write_text(json.dumps(content))
    found = sentence(lambda: repeated(Run.open("run")), kind=StudyError)
    assert "repeats.json' holds a repeat of trial 77" in found
    assert "delete it" in found


def test_a_study_whose_objectives_have_changed_places(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old / "run" / "study.db")) as database, database:
        database.execute("UPDATE study_directions SET objective = 'b' WHERE objective = 0")
    found = sentence(lambda: Run.open("run").study, kind=StudyError)
    assert "its objectives are ['maximize', 'minimize'], not ['minimize', 'maximize']" in found


def test_proposals_with_a_number_of_any_length_are_of_no_space(old: Path) -> None:
    architecture = {"space": "mbconv", "params": {"resolution": 10**400, "stem_width": 8}}
    file = old / "run" / "warm_start" / "proposals.json"
    file.parent.mkdir()
    file.write_text(json.dumps([{"route": "slices", "architecture": architecture}]))
    assert proposals(Run.open("run")) == []


def test_a_backbone_that_timm_has_not_is_refused_with_its_section() -> None:
    config = PrunedConfig(route="pruned", backbone="resnet81", options={"resolutions": [32]})
    found = sentence(lambda: check_reach(create_route("cuts", config, 8), BudgetConfig()))
    assert found.startswith("`spaces.cuts`: timm has no model 'resnet81'")


class Numbers(Section):
    count: int = 0
    shares: tuple[float, ...] = ()
    counts: dict[str, int] | None = None
    flag: bool = False
    either: bool | int = 0
    inner: "Numbers | None" = None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"count": 1, "count": 1}', "the field 'count' is there twice"),
        ('{"inner": {"flag": true, "flag": false}}', "the field 'flag' is there twice"),
        ('{"count": true}', "the field 'count' is True: expected a number"),
        ('{"shares": [0.5, false]}', "the field 'shares' is .*: expected a number"),
        ('{"counts": {"a": true}}', "the field 'counts' is .*: expected a number"),
        ('{"inner": {"count": true}}', "the field 'inner': the field 'count' is True"),
    ],
)
def test_json_that_could_be_taken_in_two_ways(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=rf"a\.json' cannot be read: {problem}"):
        read_json(path, Numbers, error=StudyError, remedy="write it again")


def test_truth_values_are_taken_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"flag": true, "either": true, "inner": {"flag": false}}')
    found = read_json(path, Numbers, error=StudyError, remedy="write it again")
    assert found.flag is True
    assert found.either is True


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_run_file_with_what_is_no_number_of_json(old: Path, number: str) -> None:
    file = old / "run" / "run.json"
    file.write_text(file.read_text().replace('"trials"', f'"a": {number}, "trials"', 1))
    text = file.read_text()
    file.write_text(text if number in text else text.replace("{", f'{{"a": {number},', 1))
    assert "run.json" in sentence(lambda: Run.open("run"), kind=StudyError)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("trials", "1e23", "trials"),
        ("trials", "true", "the field 'trials' is True: expected a number"),
        ("seed", "-1", "seed"),
        ("data", '"\\ud800"', "a text is no UTF-8 in line"),
    ],
)
def test_study_files_with_one_odd_value(old: Path, name: str, text: str, sentence: str) -> None:
    content = yaml.safe_load((old / "study.yaml").read_bytes())
    content.pop(name, None)
    (old / "study.yaml").write_text(f"{yaml.safe_dump(content)}\n{name}: {text}\n")
    with pytest.raises(StudyError, match=rf"study\.yaml.*{sentence}"):
        load_config(old / "study.yaml")


STAGE = {"widths": [8], "depths": [1], "kernels": [99]}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"space": "mbcnnv"}, "`spaces.mine`: no search space 'mbcnnv'"),
        ({"options": {"resolutions": [99999]}}, "`spaces.mine`: resolutions"),
        (
            {"options": {"stages": [{"widths": [8], "depths": [1], "kernels": [99]}]}},
            r"`spaces.mine`: stages\[1\].kernels",
        ),
    ],
)
def test_the_section_of_a_space_is_named(section: dict[str, Any], problem: str) -> None:
    spaces = {"mine": {"route": "standalone", "space": "mbconv", **section}}
    config = StudyConfig.model_validate({"data": "a", "gallery": "b", "spaces": spaces})
    with pytest.raises(QuerynasError, match=problem):
        create_route("mine", config.spaces["mine"], 8).reach()


@pytest.mark.parametrize("name", ["cub200", "inshop", "cifar10", "omniglot", "sop"])
def test_a_published_set_with_a_wrong_field_is_named(name: str) -> None:
    with pytest.raises(CompatError, match=f"The set {name}: unknown field 'rot'"):
        open_data(f"{name}:rot=a")


def test_the_listing_that_does_not_fit_another_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    folder.mkdir()
    for name, text in (
        ("classes.txt", "1 auk\n"),
        ("images.txt", "1 auk/1.jpg\n2 auk/2.jpg\n"),
        ("image_class_labels.txt", "1 1\n"),
    ):
        (folder / name).write_text(text)
    with pytest.raises(CompatError, match=r"image_class_labels\.txt lists 1 images, but .* 2"):
        open_data(f"cub200:root={tmp_path}")
    (folder / "classes.txt").write_text("1 a\0uk\n")
    with pytest.raises(CompatError, match=r"classes\.txt has a name in line 1"):
        open_data(f"cub200:root={tmp_path}")


def test_a_manifest_with_a_label_of_any_length_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(f"path,label\na.png,{'x' * 5000}\n")
    assert "list.csv: the name" in sentence(lambda: open_data(tmp_path / "list.csv"))


def refused(cli: Cli, *words: str) -> str:
    """The one sentence with which a command exits."""
    code, _, said = cli(*words)
    assert code == 2, said
    assert "Traceback" not in said
    (line,) = (each for each in said.splitlines() if each.startswith("querynas: "))
    assert len(line) <= LONGEST + len("querynas: ")
    return line


def pictures(folder: Path) -> None:
    """Ten classes of three images."""
    for number in range(30):
        place = folder / str(number // 3) / f"{number % 3}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(place)


LYING = (
    *("sqlalchemy", "onnx", "yaml", "pandas", "optuna", "faiss", "timm", "PIL", "matplotlib"),
    *("socket", "threading", "pickle", "struct"),
)


INSTALLED = """
import multiprocessing, sys
from importlib.metadata import entry_points

(command,) = entry_points(group="console_scripts", name="querynas")
command = command.load()
if __name__ == "__main__":
    for line in sys.stdin:
        sys.argv = ["querynas", *line.split()]
        try:
            command()
        except SystemExit as exit:
            assert not exit.code, line
    worker = multiprocessing.get_context("spawn").Process(target=print, args=("worked",))
    worker.start()
    worker.join()
"""


def test_modules_among_the_data_are_not_run(old: Path, tmp_path: Path) -> None:
    """Building a gallery of the folder, a report, a table of the front, and a wrong image.

    By the command as it is installed, a script outside the folder, in a process of its own, and
    by a worker process that it starts.
    """
    for name in LYING:
        for place in (old, old / "images" / "5"):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.py").write_text(f"open('{old}/executed', 'a').write('{name} ')")
    pictures(old / "images")
    model = "timm:test_resnet,pretrained=false,resolution=32"
    lines = (
        f"gallery build --data images --model {model} --out g",
        "pareto run",
        "report run",
    )
    script = tmp_path / "bin" / "querynas"
    script.parent.mkdir()
    script.write_text(INSTALLED)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "worked" in done.stdout, done.stderr
    for made in (old / "g" / "gallery.json", old / "run" / "report.html"):
        assert made.is_file()
    assert not (old / "executed").exists(), (old / "executed").read_text()


@pytest.mark.parametrize(
    "words", [("pareto", "run"), ("report", "run"), ("export", "run", "--trial", "0")]
)
def test_a_foreign_run_with_imports_is_asked_for(
    old: Path, cli: Cli, words: tuple[str, ...]
) -> None:
    (old / "foreign.py").write_text(f"open('{old}/executed', 'a')")
    study = old / "run" / "study.yaml"
    content = yaml.safe_load(study.read_bytes())
    study.write_text(yaml.safe_dump(content | {"imports": ["foreign"]}))
    out = ("--out", "m.safetensors") if words[0] == "export" else ()
    found = refused(cli, *words, *out)
    assert "'foreign'" in found
    assert "--trust-imports" in found
    assert not (old / "executed").exists()


def test_an_index_that_maps_ids_leaves_the_process_alive(tmp_path: Path) -> None:
    index = faiss.IndexIDMap(faiss.IndexFlatL2(4))
    index.add_with_ids(np.eye(4, dtype=np.float32), np.arange(4))
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    with pytest.raises(CompatError, match=r"v\.faiss .*it maps ids of its own"):
        import_gallery(tmp_path / "v.faiss", tmp_path / "g")


def test_commands_refuse_a_broken_image_a_device_and_a_long_path(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "images")
    folder = tmp_path / "images" / "5"
    (folder / "2.png").write_bytes(b"oops")
    build = ("gallery", "build", "--out", "g", "--model")
    model = "timm:test_resnet,pretrained=false,resolution=32"
    assert "2.png" in refused(cli, *build, model, "--data", "images", "--strict")
    (folder / "2.png").unlink()
    (folder / "2.png").symlink_to("/dev/zero")
    table = tmp_path / "list.csv"
    table.write_text("path,label\nimages/5/1.png,a\nimages/5/2.png,a\n")
    assert "2.png" in refused(cli, *build, model, "--data", "list.csv", "--strict")
    assert "2.png" in refused(cli, *build, model, "--data", "images", "--strict")
    assert "nnnn" in refused(cli, *build, model, "--data", "n" * 5000)
    assert "resolution" in refused(cli, *build, f"{model}999", "--data", "images")


def test_a_prepared_program_is_never_opened(old: Path, cli: Cli) -> None:
    (old / "model.pt2").write_bytes(b"PK\x03\x04 prepared")
    assert "model.pt2" in refused(
        cli, "evaluate", "model.pt2", "--gallery", "gallery", "--data", "facades"
    )
