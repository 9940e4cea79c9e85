"""The documentation's search space of one's own works as it stands."""

import importlib
import random
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import searchspaces.resnet
import searchspaces.shufflenet
import searchspaces.space
import searchspaces.union
import searchspaces.vit
import searchspaces.zoo
from nas.candidates.routes import StandaloneRoute, create_route
from nas.config.plugins import import_modules
from nas.config.study import RouteConfig, load_config
from pruning import load_model, save_model
from searchspaces import ElasticSpace, SearchSpace, count_macs, create_space, space_names

TEXT = Path("docs/spaces.md").read_text()


def block(language: str, part: str) -> str:
    """The one block of the documentation in this language that has these words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    (found,) = (each for each in blocks if part in each)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The current folder, with the documentation's module in it and nothing registered yet."""
    (tmp_path / "my_spaces.py").write_text(block("python", "class PlainSpace"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(searchspaces.space, "_REGISTRY", dict(searchspaces.space._REGISTRY))
    yield tmp_path
    sys.modules.pop("my_spaces", None)


def test_a_study_file_finds_it(folder: Any) -> None:
    (folder / "plain.yaml").write_text(block("yaml", "imports: [my_spaces]"))
    assert "plain" not in space_names()
    config = load_config("plain.yaml")
    import_modules(config.imports)
    route = create_route("plain", config.spaces["plain"], 64)
    assert isinstance(route, StandaloneRoute)
    assert isinstance(route.space, SearchSpace)
    assert route.space.options["widths"] == [16, 32]
    assert route.largest_resolution == 48
    first = route.start(random.Random(0), 4, config.budget)
    assert len(first) == 4


def test_its_check_passes_and_would_notice_a_wrong_count(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    check = block("python", "check_space(")
    exec(check, {})
    plain_space = sys.modules["my_spaces"].PlainSpace
    counted = plain_space.macs
    monkeypatch.setattr(plain_space, "macs", lambda self, *args: counted(self, *args) + 1)
    with pytest.raises(AssertionError, match=r"macs says .*, but fvcore counts"):
        exec(check, {})


def test_it_can_be_searched_saved_and_loaded(folder: Any) -> None:
    import_modules(["my_spaces"])
    space = create_space("plain")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: space.macs(space.suggest(trial), 8), n_trials=5)
    architecture = space.suggest(optuna.trial.FixedTrial(study.best_params))
    assert space.macs(architecture, 8) == study.best_value
    assert space.size() == 2 * 3 * 4
    model = space.build(architecture, 8).eval()
    save_model(model, folder / "model.safetensors")
    images = torch.rand(2, 3, model.resolution, model.resolution)
    with torch.no_grad():
        loaded = load_model(folder / "model.safetensors")
        torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)


def test_an_installed_package_brings_it_along(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tomllib.loads(block("toml", "querynas.searchspaces"))
    assert package["tool"]["setuptools"]["py-modules"] == ["my_spaces"]
    # what installing it leaves behind, in a folder that Python looks in
    info = folder / "my_spaces-1.0.dist-info"
    info.mkdir()
    project = package["project"]
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()

    assert "plain" in space_names()
    assert "my_spaces" not in sys.modules
    space = create_space("plain", most_layers=2)
    assert space.size() == 2 * 3 * 2
    union = create_space("union", spaces={"mine": {"space": "plain"}, "other": {"space": "mbconv"}})
    assert "mine.layers" in union.distributions()


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_its_formula_counts_what_fvcore_counts(seed: int) -> None:
    names: dict = {}
    source = block("python", "class PlainSpace").replace('@register_space("plain")\n', "")
    exec(source, names)
    space = names["PlainSpace"](resolutions=(15, 32), widths=(3, 8), most_layers=5)
    architecture = space.sample(random.Random(seed))
    model = space.build(architecture, 6)
    assert space.macs(architecture, 6) == count_macs(model, model.resolution)


def test_the_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("python", 'create_space("shufflenet"'), {})
    assert '"space": "shufflenet"' in capsys.readouterr().out


@pytest.mark.parametrize("part", ["space: timm\n", "space: union\n"])
def test_the_sections_of_study_files_are_understood(part: Any) -> None:
    for section in yaml.safe_load(block("yaml", part))["spaces"].values():
        config = TypeAdapter(RouteConfig).validate_python(section)
        space = create_space(config.space, **config.options)
        assert isinstance(space, SearchSpace)


def test_the_published_space_has_the_published_size() -> None:
    options = yaml.safe_load(block("yaml", "ratios: [0.2"))["options"]
    assert create_space("shufflenet", **options).size() == (4 * 10) ** 20


def test_the_table_names_all_spaces() -> None:
    table = re.findall(r"^\| `([\w-]+)` \|.*\| (yes|no) \|$", TEXT, flags=re.MULTILINE)
    assert len(table) == 8
    needed = {
        "timm": {"backbones": ["lcnet_050"]},
        "timm-elastic": {"backbone": "lcnet_050"},
        "pruned": {"backbone": "lcnet_050"},
        "union": {"spaces": {"a": {"space": "mbconv"}}},
    }
    for name, supernet in table:
        space = create_space(name, **needed.get(name, {}))
        assert isinstance(space, ElasticSpace) == (supernet == "yes")
