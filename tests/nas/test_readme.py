"""The README's promises about its own code."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.study.export import export
from nas.study.run import Run


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)


def test_the_python_example_is_short_and_names_what_exists() -> None:
    example = next(s for s in snippets() if "from nas import" in s)
    assert len(example.splitlines()) < 25
    imports = [line for line in example.splitlines() if line.startswith("from")]
    exec("\n".join(imports), {})


def test_the_device_example_retrieves_with_the_same_map(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = next(s for s in snippets() if "onnxruntime" in s)
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
    names: dict = {}
    exec(example, names)

    embeddings = np.stack([names["embed"](file) for file in files])
    found = task.score(embeddings).cross_test.map
    assert found == pytest.approx(exported.card.scores.cross_test.map, abs=1e-6)
