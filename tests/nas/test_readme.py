"""The README runs as it stands, with networks, epochs and images that take less time."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from PIL import Image
from safetensors.torch import save_file

from compat.data import open_data
from nas.study.exports import export
from nas.study.run import Run

Cli = Callable[..., tuple[int, str, str]]

TEXT = Path("README.md").read_text()
IMAGES = "facades:classes=16,images=8,size=32,seed=0"
UNTRAINED = "timm:test_resnet,pretrained=false,resolution=32"
SMALL_LOSS = {"ssp": {"weight": 1.0, "bits": 4}, "regression": 0.5}
FEW_BLOCKS = "{resolutions: [32], head_widths: [16], stages: [{widths: [8], depths: [1]}]}"
ONE_EPOCH = "--no-pretrained --epochs 1 --batch 32"
SHORTER = {
    "gallery build": "--views 1",
    "gallery train": "--epochs 1 --resolution 32 --dimension 16",
    "search test_resnet": "--checkpoint weights.safetensors --trials 1 --epochs 1 --max-macs 3M",
    "latency": f"--options '{FEW_BLOCKS}'",
    "adapt": "--no-pretrained --resolution 32",
    "prune": f"{ONE_EPOCH} --resolution 32 --rounds 1 --align-epochs 1 --finish-epochs 1",
    "nest": f"{ONE_EPOCH} --resolution 32 --capacities 50,100",
}


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def snippet(language: str, part: str) -> str:
    (found,) = (each for each in snippets(language) if part in each)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder of photos in it: rendered façades, a folder per class."""
    images = open_data(IMAGES)
    for row, label in enumerate(images.labels):
        file = tmp_path / "photos" / str(label) / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.source.load(row).save(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study_file(folder: Path, tiny_study: dict[str, Any]) -> None:
    """The README's study file, with the small spaces of the tests."""
    content = yaml.safe_load(snippet("yaml", "spaces:"))
    assert content["spaces"].keys() == tiny_study["spaces"].keys()
    for name, space in content["spaces"].items():
        space.update(tiny_study["spaces"][name])
    content |= {"trials": 3, "start": 3, "loss": SMALL_LOSS, "budget": {"max_macs": "600k"}}
    content["finish"] |= {"models": 1, "training": tiny_study["finish"]["training"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.usefixtures("study_file")
def test_every_command_runs(folder: Path, cli: Cli) -> None:
    np.save(folder / "g.npy", np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32))
    (folder / "ids.txt").write_text("a\nb\nc\nd\ne\n")
    save_file(timm.create_model("test_resnet").state_dict(), folder / "weights.safetensors")
    first, every = (each for each in snippets("sh") if "querynas search" in each)
    assert {line.split()[1] for line in first.splitlines()} == {"gallery", "search", "report"}
    text = (first + every).replace("timm:resnet50", UNTRAINED).replace("resnet18", "test_resnet")
    for line in text.replace("tf_efficientnet_lite0", "test_resnet").splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "querynas"
        command = words[0] if words[0] in SHORTER else " ".join(words[:2])
        code, _, complaint = cli(*words, *shlex.split(SHORTER.get(command, "")))
        assert code == 0, f"{line}\n{complaint}"


def test_every_command_is_named(cli: Cli) -> None:
    _, listed, _ = cli("--help")
    commands = re.findall(r"^│ ([a-z]+) ", listed.partition("Commands")[2], flags=re.MULTILINE)
    assert len(commands) > 10
    assert [name for name in commands if f"querynas {name}" not in TEXT] == ["repeat"]


def test_the_make_targets_exist() -> None:
    wanted = re.findall(r"^make (\w+)", snippet("sh", "make demo"), flags=re.MULTILINE)
    assert wanted == ["demo", "test"]
    for target in wanted:
        assert re.search(rf"^{target}:", Path("Makefile").read_text(), flags=re.MULTILINE)


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", TEXT):
        assert Path(link).exists(), link


def test_the_python_example_runs(
    folder: Path, tiny_study: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    example = snippet("python", "from nas import")
    assert len(example.splitlines()) < 30
    shorter = {
        '"timm:resnet50"': repr(UNTRAINED),
        "count=4": "count=1",
        '{"slices": {"route": "supernet"}}': repr({"slices": tiny_study["spaces"]["slices"]}),
        '{"ssp": 1.0, "regression": 0.5}': repr(SMALL_LOSS),
        "trials=200": "trials=3, start=3",
    }
    for shown, run in shorter.items():
        assert shown in example
        example = example.replace(shown, run)
    exec(example, {})
    assert (folder / "query.onnx").is_file()
    assert (folder / "runs/a/report.html").is_file()
    assert str(Path("runs/a/report.html")) in capsys.readouterr().out


def test_the_device_example_retrieves_with_the_same_map(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = snippet("python", "onnxruntime")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exported = export(tiny_run, tiny_run.front()[-1], "onnx", tmp_path / "query.onnx")

    task = tiny_run.data.test
    files = []
    for i in range(len(task.images)):
        files.append(tmp_path / f"{i}.png")
        task.images.source.load(i).save(files[-1])
    Image.open(files[0]).save(tmp_path / "query.jpg")
    (tmp_path / "galleries").mkdir()
    (tmp_path / "galleries/r50").symlink_to(Path(tiny_run.config.gallery).resolve())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)

    embeddings = np.stack([names["embed"](file) for file in files])
    found = task.score(embeddings).cross_test.map
    assert found == pytest.approx(exported.card.scores.cross_test.map, abs=1e-6)
