"""Two exported models against each other, by the API and by the command."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compat.evaluation import paired_difference
from nas.deployment.compare import compare_files
from nas.errors import StudyError
from nas.study.exports import export
from nas.study.run import Run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The cheapest and the dearest candidate of the study, in two formats."""
    folder = tmp_path_factory.mktemp("compared")
    records = sorted(tiny_run.records(), key=lambda r: r.macs)
    small = export(tiny_run, records[0], "onnx", folder / "small.onnx")
    large = export(tiny_run, records[-1], "safetensors", folder / "large.safetensors")
    return small.path, large.path


def test_it_compares_the_scores_of_both_cards(
    tiny_run: Run, models: tuple[Path, Path], cli: Cli
) -> None:
    where = ("--gallery", tiny_run.config.gallery, "--data", tiny_run.config.data)
    code, out, err = cli("compare", *models, *where, "--json")
    assert code == 0, err
    done = json.loads(out)
    for name, path in zip(("first", "second"), models, strict=True):
        card = json.loads(path.with_name(f"{path.name}.json").read_text())
        found = done[name]["protocols"]["labels"]
        for test in ("self_test", "cross_test", "paragon"):
            assert found[test]["map"] == pytest.approx(card["scores"][test]["map"], abs=1e-6)
        tests = [found[test]["map"] for test in ("self_test", "cross_test", "paragon")]
        assert found["criteria"]["cmp_nas"] == (tests[1] > tests[0])
        assert found["criteria"]["bct"] == (tests[1] > tests[2])
        assert -1 <= done[name]["agreement"]["cosine"] <= 1
    difference = done["differences"]["labels"]
    means = [done[name]["protocols"]["labels"]["cross_test"]["map"] for name in ("first", "second")]
    assert difference["mean"] == pytest.approx(means[0] - means[1])
    code, out, _ = cli("compare", *models, *where)
    assert code == 0
    assert all(f"{value:.4f}" in out for value in (*means, difference["p_value"]))
    assert "CMP-NAS" in out
    assert " ".join(out.split()).count(difference["verdict"]) == 1


def test_the_command_explains_itself_and_refuses_in_one_sentence(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("compare", "--help")
    assert (code, "MODEL_A" in out, "MODEL_B" in out) == (0, True, True)
    file = tmp_path / "none.onnx"
    code, _, err = cli("compare", file, file, "--gallery", tmp_path, "--data", "facades")
    assert code == 2
    assert "There is no file" in err


def test_a_model_is_not_distinguishable_from_itself(
    tiny_run: Run, models: tuple[Path, Path]
) -> None:
    done = compare_files(models[0], models[0], tiny_run.config.gallery, tiny_run.config.data)
    difference = done.differences["labels"]
    assert (difference.mean, difference.p_value) == (0, 1)
    assert "not distinguishable" in done.verdict("labels")
    assert done.agreements[0] == done.agreements[1]
    assert done.agreements[0].images == difference.queries


def test_the_verdict_names_the_better_one(tiny_run: Run, models: tuple[Path, Path]) -> None:
    done = compare_files(*models, tiny_run.config.gallery, tiny_run.config.data)
    low, high = np.linspace(0.1, 0.2, 30), np.linspace(0.5, 0.7, 30)
    for first, second, word in ((high, low, "better"), (low, high, "worse")):
        told = dataclasses.replace(done, differences={"labels": paired_difference(first, second)})
        assert told.verdict("labels") == f"{models[0]} is {word} than {models[1]} at 95%."


def test_models_tested_on_other_classes_are_not_compared(
    tiny_run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    for file in models[0].parent.glob(f"{models[0].name}*"):
        shutil.copy(file, tmp_path)
    card = tmp_path / f"{models[0].name}.json"
    content = json.loads(card.read_text())
    content["data"]["split"]["val"] = 0.2
    card.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=r"val=0.15.* with \(val=0.2"):
        compare_files(
            models[1],
            tmp_path / models[0].name,
            tiny_run.config.gallery,
            tiny_run.config.data,
        )
