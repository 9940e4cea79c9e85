"""A latency table is exact where latencies add up: checked by a clock that counts."""

import json
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas.candidates.latency_table import (
    FITTED,
    ROUNDS,
    LatencyTable,
    SpaceOptions,
    blockwise,
    calibrate,
    check,
    open_table,
)
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.trials import search
from searchspaces import Architecture, MBConvSpace, QueryModel, SearchSpaceError, create_space
from searchspaces.timing import Runtime, describe_runtime, forward_seconds

Cli = Callable[..., tuple[int, str, str]]

OPTIONS: dict[str, Any] = {
    "resolutions": [16, 24],
    "stem_widths": [8, 16],
    "stem_strides": [1, 2],
    "head_widths": [32],
    "stages": [
        {"widths": [8, 16], "depths": [1, 2], "expansions": [1, 2], "kernels": [3]},
        {"widths": [16], "depths": [1, 3], "expansions": [2], "kernels": [3, 5], "strides": [1, 2]},
    ],
    "se": True,
}
SPACE = SpaceOptions(name="mbconv", options=OPTIONS)
DIMENSION = 12
WRAPPING = 0.004  # seconds that the counting clock adds for a whole network

quiet = pytest.mark.filterwarnings("ignore")


def counting_clock(module: nn.Module, shape: tuple[int, ...], runtime: Runtime) -> float:
    """A nanosecond per multiply-accumulate, and something for what is around a whole network."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        each = 2 if isinstance(layer, nn.BatchNorm2d) else layer.weight[0].numel()
        counts.append(output.numel() * each)

    layers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, layers)]
    with torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(counts) * 1e-9 + WRAPPING * isinstance(module, QueryModel)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.json"
    calibrate([SPACE], path, dimension=DIMENSION, timer=counting_clock)
    return path


@pytest.fixture(scope="module")
def table(file: Path) -> LatencyTable:
    return open_table(file)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_sum_of_blocks_is_the_latency_where_latencies_add_up(
    seed: int, table: LatencyTable
) -> None:
    space = MBConvSpace(**OPTIONS)
    architecture = space.sample(random.Random(seed))
    expected = space.macs(architecture, DIMENSION) * 1e-9 + WRAPPING
    assert table.overhead == pytest.approx(WRAPPING)
    assert table.seconds(space, architecture, DIMENSION) == pytest.approx(expected, abs=1e-12)


def test_a_union_has_a_table_if_all_its_spaces_have_blocks(tmp_path: Path) -> None:
    small = {"space": "shufflenet", "widths": [16], "depths": [2], "stem_width": 8, "head_width": 8}
    options = {"spaces": {"mobile": {"space": "mbconv", **OPTIONS}, "shuffled": small}}
    union = SpaceOptions(name="union", options=options)
    table = calibrate([union], tmp_path / "t.json", dimension=4, timer=counting_clock)
    space = create_space("union", **options)
    rng = random.Random(0)
    for architecture in (space.sample(rng) for _ in range(10)):
        expected = space.macs(architecture, 4) * 1e-9 + WRAPPING
        assert table.seconds(space, architecture, 4) == pytest.approx(expected, abs=1e-12)


def test_a_union_of_a_space_without_blocks_has_no_table(tmp_path: Path) -> None:
    members = {"mobile": {"space": "mbconv"}, "cut": {"space": "pruned", "backbone": "resnet10t"}}
    union = SpaceOptions(name="union", options={"spaces": members})
    with pytest.raises(SearchSpaceError, match="'cut' of the space 'union' is a space 'pruned'"):
        calibrate([union], tmp_path / "t.json", dimension=4, timer=counting_clock)
    assert not (tmp_path / "t.json").exists()


def test_a_check_of_an_exact_table_finds_no_error(table: LatencyTable) -> None:
    drawn: list[str] = []

    def clock(module: nn.Module, shape: tuple[int, ...], runtime: Runtime) -> float:
        assert isinstance(module, QueryModel)
        drawn.append(Architecture("mbconv", dict((module.origin or {})["params"])).digest)
        return counting_clock(module, shape, runtime)

    done = check(table, networks=12, timer=clock)
    assert Counter(drawn).most_common() == [(digest, ROUNDS) for digest in dict.fromkeys(drawn)]
    assert len(set(drawn)) == 12
    assert len(table.fitted_on) == FITTED
    assert not set(drawn) & set(table.fitted_on)
    figures = done.figures()
    assert figures["largest_error"] == pytest.approx(0, abs=1e-9)
    for proxy in ("table", "macs"):
        assert list(figures[proxy].values()) == pytest.approx([1, 1, 1])


def test_a_slower_machine_shows_as_bias(table: LatencyTable) -> None:
    done = check(table, networks=5, timer=lambda *given: 2 * counting_clock(*given))
    assert done.figures()["bias"] == pytest.approx(-0.5)
    assert done.figures()["mean_error"] == pytest.approx(0.5)
    assert done.figures()["table"]["pearson"] == pytest.approx(1)


def test_a_stopped_calibration_goes_on(tmp_path: Path) -> None:
    path, timed = tmp_path / "table.json", []

    def clock(module: nn.Module, shape: tuple[int, ...], runtime: Runtime) -> float:
        timed.append(shape)
        if len(timed) == 40:
            raise KeyboardInterrupt
        return counting_clock(module, shape, runtime)

    with pytest.raises(KeyboardInterrupt):
        calibrate([SPACE], path, dimension=DIMENSION, timer=clock)
    begun = open_table(path)
    assert 0 < len(begun.blocks) < 40
    space = MBConvSpace(**OPTIONS)
    with pytest.raises(StudyError, match="not finished; run the same"):
        begun.seconds(space, space.smallest(), DIMENSION)
    timed = [(0,)] * 40
    done = calibrate([SPACE], path, dimension=DIMENSION, timer=clock)
    calls = 2  # of an empty block, one in each round
    expected = ROUNDS * (len(done.blocks) + FITTED) - len(begun.blocks) + calls
    assert len(timed) - 40 == expected
    assert calibrate([SPACE], path, dimension=DIMENSION, timer=clock) == done
    assert len(timed) - 40 == expected


def test_the_fastest_round_counts_without_the_call(tmp_path: Path) -> None:
    rounds: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def clock(module: nn.Module, shape: tuple[int, ...], runtime: Runtime) -> float:
        """Every call takes a second, and every other time of an alike module one more."""
        rounds[str(module), shape] += 1
        disturbed = 0 if isinstance(module, nn.Identity) else rounds[str(module), shape] % 2
        return counting_clock(module, shape, runtime) + 1 + disturbed

    done = calibrate([SPACE], tmp_path / "table.json", dimension=DIMENSION, timer=clock)
    space = MBConvSpace(**OPTIONS)
    assert done.overhead == pytest.approx(1 + WRAPPING)
    seconds = done.seconds(space, space.largest(), DIMENSION)
    expected = space.macs(space.largest(), DIMENSION) * 1e-9 + 1 + WRAPPING
    assert seconds == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("spaces", "settings_", "words"),
    [
        ([SpaceOptions(name="mbconv")], {"dimension": DIMENSION}, "begun with spaces = .*mbconv"),
        ([SPACE], {"dimension": 4}, "begun with dimension = 12, not 4"),
        ([SPACE], {"dimension": DIMENSION, "runtime": "onnxruntime"}, "with runtime = 'pytorch'"),
    ],
)
def test_a_table_is_not_continued_as_another(
    file: Path, spaces: list[SpaceOptions], settings_: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        calibrate(spaces, file, timer=counting_clock, **settings_)


def test_a_table_does_not_answer_for_other_spaces(table: LatencyTable) -> None:
    larger = MBConvSpace(**{**OPTIONS, "head_widths": [32, 64]})
    with pytest.raises(StudyError, match=r"lacks \d+ of \d+ blocks of the space 'mbconv', such as"):
        table.check_covers(larger, DIMENSION)
    table.check_covers(MBConvSpace(**{**OPTIONS, "resolutions": [24]}), DIMENSION)
    with pytest.raises(StudyError, match="with 12 dimensions lacks"):
        table.seconds(larger, larger.smallest(), 4)
    cut = create_space("pruned", backbone="resnet10t")
    with pytest.raises(StudyError, match="'pruned' does not say which blocks"):
        table.check_covers(cut, DIMENSION)


def test_a_space_too_small_to_check_is_refused(tmp_path: Path) -> None:
    stage = {"widths": [8], "depths": [1], "expansions": [2], "kernels": [3]}
    options = {"stem_widths": [8], "stem_strides": [2], "head_widths": [16], "stages": [stage]}
    small = SpaceOptions(name="mbconv", options=options)
    done = calibrate([small], tmp_path / "t.json", dimension=4, timer=counting_clock)
    assert len(done.fitted_on) == 3  # all that there are
    with pytest.raises(StudyError, match="have 0 networks beside those"):
        check(done, timer=counting_clock)


@pytest.mark.parametrize("content", [None, "{}", "latencies"])
def test_what_is_no_table_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "no.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StudyError, match=r"latency table.*querynas latency calibrate"):
        open_table(path)


@quiet
@pytest.mark.parametrize("runtime", ["pytorch", "onnxruntime"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mbconv", OPTIONS),
        ("resnet", {"stem_strides": [4], "stages": [{"widths": [16], "depths": [1]}]}),
        ("vit", {"stems": ["conv"], "depths": [3]}),
        ("shufflenet", {"widths": [32], "depths": [2]}),
    ],
)
def test_blocks_and_networks_run_in_both_runtimes(
    name: str, options: dict[str, Any], runtime: Runtime
) -> None:
    space = create_space(name, **options)
    architecture = space.sample(random.Random(0))
    recipes = blockwise(space).blocks(architecture, DIMENSION)
    network = space.build(architecture, DIMENSION)
    for module, shape in [
        *((recipe.make(), recipe.shape) for recipe in (recipes[0], recipes[1], recipes[-1])),
        (network, (3, network.resolution, network.resolution)),
    ]:
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        seconds = forward_seconds(module.train(), shape, runtime, warmup=1, runs=3)
        assert len(seconds) == 3
        assert min(seconds) > 0
        assert module.training
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, before[name], atol=0, rtol=0)
    assert "thread" in describe_runtime(runtime)


@pytest.fixture
def latency(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `querynas latency` by the counting clock."""
    monkeypatch.setattr(
        "nas.candidates.latency_table.forward_seconds",
        lambda module, shape, runtime, **_: [counting_clock(module, shape, runtime)],
    )
    return partial(cli, "latency")


def test_the_command_calibrates_and_checks(latency: Cli, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    space = ("--space", "mbconv", "--options", yaml.safe_dump(OPTIONS), "--dimension", DIMENSION)
    code, out, _ = latency("calibrate", *space, "--out", path)
    assert code == 0
    assert f"{len(open_table(path).blocks):,} blocks" in out
    assert "+4.000 ms beyond the sum" in out
    code, out, _ = latency("check", "--table", path, "--networks", 5)
    assert code == 0
    assert "Kendall τ 1.000" in out
    assert "largest 0.0%" in out
    code, out, _ = latency("check", "--table", path, "--networks", 5, "--json")
    assert json.loads(out)["networks"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --study, or --space with --dimension"),
        (["--space", "mbconv"], "either --study, or --space with --dimension"),
        (["--space", "mbcov", "--dimension", 4], "did you mean 'mbconv'"),
        (["--space", "mbconv", "--dimension", 4, "--options", "[1"], "not valid YAML"),
        (["--space", "mbconv", "--dimension", 4, "--options", "32"], "not a mapping"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    latency: Cli, tmp_path: Path, arguments: list[Any], words: str
) -> None:
    code, _, err = latency("calibrate", *arguments, "--out", tmp_path / "table.json")
    assert code == 2
    assert words in err
    assert not (tmp_path / "table.json").exists()


def only_slices(study: dict[str, Any], **fields: Any) -> dict[str, Any]:
    slices = {"slices": study["spaces"]["slices"]}
    return {**study, "spaces": slices, "finish": {"models": 0}, **fields}


def test_a_study_searches_by_the_table_of_its_spaces(
    latency: Cli, tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(only_slices(tiny_study)))
    assert latency("calibrate", "--study", tmp_path / "study.yaml", "--out", path)[0] == 0
    content = only_slices(
        tiny_study,
        objectives=["table_latency", "cross_test"],
        budget={"max_table_latency": "4.2ms"},
        latency_table=str(path),
        trials=3,
    )
    run = search(StudyConfig.model_validate(content), tmp_path / "run")
    space, dimension = run.routes["slices"].space, run.data.gallery.dimension
    for record in run.records():
        latency = space.macs(record.architecture, dimension) * 1e-9 + WRAPPING
        assert record.costs["table_latency"] == pytest.approx(latency)
        assert latency <= 4.2e-3
    assert run.study.best_trials[0].values[0] == run.front()[0].costs["table_latency"]


def test_a_study_with_the_wrong_table_is_refused_before_training(
    tiny_study: dict[str, Any], tmp_path: Path, file: Path
) -> None:
    content = only_slices(
        tiny_study, objectives=["table_latency", "cross_test"], latency_table=str(file)
    )
    with pytest.raises(StudyError, match="blocks of the space 'mbconv', such as"):
        search(StudyConfig.model_validate(content), tmp_path / "run")
    assert not (tmp_path / "run").exists()
