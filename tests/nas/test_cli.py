"""The command line: what it prints, and how it refuses."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from nas.study.run import Run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 14 classes with 3 small images each."""
    rng = np.random.default_rng(0)
    for label in range(14):
        folder = tmp_path / "photos" / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def study_file(folder: Path, content: dict[str, Any], **fields: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**content, **fields}))
    return path


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom nas.cli import main\nsys.argv = ['querynas', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'optuna', 'timm', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gallery" in done.stdout


def test_every_command_explains_itself(cli: Cli) -> None:
    ours = ("search", "pareto", "export", "evaluate", "compare", "profile", "report", "gallery")
    of_gallery = ("train", "build", "import", "info", "reduce", "compress", "fuse", "hash")
    for command in [*((name,) for name in ours), *(("gallery", name) for name in of_gallery)]:
        code, out, _ = cli(*command, "--help")
        assert code == 0
        assert "Usage" in out


def test_from_vectors_to_a_gallery(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "g.npy", rng.normal(size=(5, 8)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\ne\n")
    arguments = ("--vectors", tmp_path / "g.npy", "--ids", tmp_path / "ids.txt")
    code, out, _ = cli("gallery", "import", *arguments, "--out", tmp_path / "gallery")
    assert (code, "5 × 8 float32" in out) == (0, True)
    code, out, _ = cli("gallery", "info", tmp_path / "gallery", "--verify")
    assert (code, "Verified" in out) == (0, True)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda v: v.__setitem__((2, 3), np.nan), "vector 2|row 2"),
        (lambda v: v.__setitem__(4, 0), "vector 4|row 4"),
    ],
    ids=["nan", "zero"],
)
def test_bad_vectors_are_refused(
    cli: Cli, tmp_path: Path, spoil: Callable[[np.ndarray], None], sentence: str
) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    spoil(vectors)
    np.save(tmp_path / "g.npy", vectors)
    refused(
        cli("gallery", "import", "--vectors", tmp_path / "g.npy", "--out", tmp_path / "g"), sentence
    )
    assert not (tmp_path / "g").exists()


def refused(result: tuple[int, str, str], sentence: str) -> None:
    """Exit code 2 and one sentence that matches."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("querynas: ")]
    assert code == 2, err
    assert "Traceback" not in err
    assert len(lines) == 1, err
    assert re.search(sentence, lines[0]), lines[0]


def test_ids_and_vectors_of_different_length_are_refused(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", np.ones((5, 8), np.float32))
    (tmp_path / "ids.txt").write_text("a\nb\n")
    arguments = ("--vectors", tmp_path / "g.npy", "--ids", tmp_path / "ids.txt")
    refused(cli("gallery", "import", *arguments, "--out", tmp_path / "g"), r"2 .*5|5 .*2")


def test_images_that_cannot_be_used_are_refused(cli: Cli, photos: Path, tmp_path: Path) -> None:
    build = ("gallery", "build", "--model", "timm:test_resnet,pretrained=false,resolution=32")
    out = ("--out", tmp_path / "g")
    refused(cli(*build, "--data", tmp_path / "nowhere", *out), "nowhere")
    (photos / "empty").mkdir()
    refused(cli(*build, "--data", photos, *out), "empty")
    shutil.copy(photos / "class0" / "0.png", photos / "empty" / "0.png")
    refused(cli(*build, "--data", photos, *out), "empty")


def test_gallery_models_that_cannot_be_had_are_refused(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    build = ("gallery", "build", "--data", photos, "--out", tmp_path / "g", "--model")
    refused(cli(*build, "timm:resnt18"), "resnet18")
    refused(cli(*build, "timm:resnet18.a1_in1k"), "resnet18")


def test_a_backbone_that_cannot_be_had_is_refused(
    cli: Cli, tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    cuts = {**tiny_study["spaces"]["cuts"], "pretrained": True}
    path = study_file(tmp_path, tiny_study, spaces={"cuts": cuts})
    refused(
        cli("search", path, "--out", tmp_path / "run"), "pretrained weights .* could not be had"
    )
    unknown = {**cuts, "backbone": "mobilenetv3_smal_050"}
    path = study_file(tmp_path, tiny_study, spaces={"cuts": unknown})
    refused(cli("search", path, "--out", tmp_path / "run2"), "mobilenetv3_small_050")


def test_study_files_that_are_wrong_are_refused(
    cli: Cli, tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "run")
    path = study_file(tmp_path, tiny_study, trails=3)
    refused(cli("search", path, *out), "did you mean 'trials'")
    path = study_file(tmp_path, tiny_study, budget={"max_macs": "1k"})
    refused(cli("search", path, *out), "admits no candidate")
    path = study_file(tmp_path, tiny_study, gallery=str(tmp_path / "none"))
    refused(cli("search", path, *out), "no gallery folder")
    options = {"option": 3}
    slices = {"route": "supernet", "options": options}
    path = study_file(tmp_path, tiny_study, spaces={"slices": slices})
    refused(cli("search", path, *out), "has no option 'option'")


def test_a_run_is_not_reopened_with_another_space(
    cli: Cli, tiny_run: Run, tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    spaces = {"slices": tiny_study["spaces"]["slices"]}
    path = study_file(tmp_path, tiny_study, spaces=spaces)
    refused(cli("search", path, "--out", tiny_run.path), "was begun with spaces")


def test_a_corrupt_cache_is_named(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("QUERYNAS_CACHE", str(cache))
    build = ("gallery", "build", "--data", photos, "--views", "0")
    model = ("--model", "timm:test_resnet,pretrained=false,resolution=32")
    assert cli(*build, *model, "--out", tmp_path / "g")[0] == 0
    largest = max(cache.rglob("*.npy"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    refused(cli(*build, *model, "--out", tmp_path / "g2"), str(cache))


@pytest.mark.parametrize("text", ["No space left on device", "database or disk is full"])
def test_a_full_disk_is_one_sentence(
    cli: Cli, tiny_run: Run, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("cannot write") from OSError(28, text)

    monkeypatch.setattr("nas.reporting.page.report", full)
    refused(cli("report", tiny_run.path), "disk is full")


def test_what_we_did_wrong_keeps_its_traceback(
    cli: Cli, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("nas.reporting.page.report", broken)
    with pytest.raises(ValueError, match="a mistake of ours"):
        cli("report", tiny_run.path)


def test_pareto_as_table_json_and_csv(cli: Cli, tiny_run: Run, tmp_path: Path) -> None:
    front = tiny_run.front()
    code, out, _ = cli("pareto", tiny_run.path)
    assert code == 0
    assert all(f"{r.cross_test:.4f}" in out for r in front)
    code, out, _ = cli("pareto", tiny_run.path, "--json", "--csv", tmp_path / "front.csv")
    rows = json.loads(out)
    assert [r["trial"] for r in rows] == [r.trial for r in front]
    assert rows[0]["gallery_macs_share"] == pytest.approx(
        front[0].macs / tiny_run.data.gallery.manifest.model_macs
    )
    assert len((tmp_path / "front.csv").read_text().splitlines()) == len(front) + 1
    code, out, _ = cli("pareto", tiny_run.path, "--max-macs", "1k", "--json")
    assert json.loads(out) == []
    refused(cli("pareto", tiny_run.path, "--max-flops", "lots"), "no budget of MACs")


def test_export_then_evaluate(cli: Cli, tiny_run: Run, tmp_path: Path) -> None:
    file = tmp_path / "query.onnx"
    code, out, err = cli("export", tiny_run.path, "--best-under", "1G", "--out", file)
    assert code == 0, err
    card = json.loads((tmp_path / "query.onnx.json").read_text())
    evaluate = ("evaluate", file, "--data", tiny_run.config.data, "--gallery")
    code, out, err = cli(*evaluate, tiny_run.config.gallery, "--json")
    assert code == 0, err
    (scores,) = json.loads(out)["protocols"].values()
    for test in ("self_test", "cross_test", "paragon"):
        assert scores[test]["map"] == pytest.approx(card["scores"][test]["map"], abs=1e-6)
    refused(cli(*evaluate, tmp_path / "none"), "no gallery folder")
    refused(cli("export", tiny_run.path, "--out", file), "either --trial or --best-under")
    refused(cli("export", tiny_run.path, "--trial", 999, "--out", file), "no scored trial 999")
    refused(cli("export", tiny_run.path, "--best-under", "1k", "--out", file), "1k")


def test_evaluate_refuses_another_gallery(cli: Cli, tiny_run: Run, tmp_path: Path) -> None:
    from compat.data import open_data
    from compat.gallery import build_gallery, load_gallery_model

    file = tmp_path / "query.safetensors"
    export = ("export", tiny_run.path, "--best-under", "1G", "--out", file)
    code, _, err = cli(*export, "--format", "safetensors")
    assert code == 0, err
    images = open_data(tiny_run.config.data)
    other = load_gallery_model("timm:test_resnet,pretrained=false,resolution=64")
    build_gallery(images, other, tmp_path / "other")
    narrow = load_gallery_model("timm:mobilenetv3_small_050,pretrained=false,resolution=32")
    build_gallery(images, narrow, tmp_path / "narrow")
    evaluate = ("evaluate", file, "--data", tiny_run.config.data, "--gallery")
    refused(cli(*evaluate, tmp_path / "other"), "--any-gallery")
    assert cli(*evaluate, tmp_path / "other", "--any-gallery")[0] == 0
    refused(cli(*evaluate, tmp_path / "narrow"), "96 dimensions.*1024|1024.*96")


def test_profile_counts_what_fvcore_counts(cli: Cli) -> None:
    code, out, _ = cli("profile", "timm:resnet18", "--input", "3x64x64", "--json")
    assert code == 0
    done = json.loads(out)
    assert done["macs"] == sum(done["layers"].values())
    # 1,819 MMACs at 224 pixels scale with the number of positions, but for the classifier
    assert done["macs"] == pytest.approx(1819e6 * (64 / 224) ** 2, rel=0.02)
    refused(cli("profile", "timm:resnet18", "--input", "64"), "3x224x224")
    refused(cli("profile", "model.bin"), "timm:NAME")


OLD_OPTIONS = [
    ("gallery train --data no-data --out m.safetensors", "--arch timm:a", "--backbone timm:a"),
    ("gallery train --data no-data --out m.safetensors", "--size 24", "--resolution 24"),
    ("gallery fuse g h --data no-data --out o", "--size=24", "--resolution 24"),
    ("gallery hash g --data no-data --bits 8 --out o", "--size 24", "--resolution=24"),
    ("nest tiny_net --gallery g --data no-data --out o", "--size 24", "--resolution 24"),
]


@pytest.mark.parametrize(("command", "old", "new"), OLD_OPTIONS)
def test_old_options_are_taken_but_not_shown(cli: Cli, command: str, old: str, new: str) -> None:
    before, now = (each.replace("=", " ").split()[0] for each in (old, new))
    _, shown, _ = cli(*command.split(" --")[0].split()[:2], "--help")
    assert now in shown
    assert before not in shown
    code, _, complaint = cli(*command.split(), *old.split())
    assert code == 2
    assert complaint.startswith("querynas: ")
    code, _, complaint = cli(*command.split(), *old.split(), *new.split())
    assert code == 2
    assert complaint.startswith(f"querynas: {before} is the old name of {now}, and both are there")
