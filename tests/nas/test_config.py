"""Study files: what is accepted, and the one sentence that answers what is not."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nas.config.alignment import as_begun
from nas.config.budget import format_macs, parse_macs
from nas.config.study import StudyConfig, SupernetConfig, SupernetTraining, load_config
from nas.errors import StudyError

MINIMAL = {"data": "photos", "gallery": "galleries/g", "spaces": {"s": {"route": "supernet"}}}


def supernet(**training: object) -> dict[str, object]:
    return {"spaces": {"s": {"route": "supernet", "training": training}}}


def write(folder: Path, content: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


PRETRAINED = {
    "slices": {"route": "supernet", "space": "timm-elastic", "options": {"backbone": "resnet18"}},
    "cuts": {"route": "pruned", "backbone": "resnet18"},
}


def test_the_loss_where_none_is_named_suits_the_weights() -> None:
    def loss(**fields: Any) -> Any:
        return StudyConfig.model_validate({**MINIMAL, **fields}).with_loss().alignment_loss

    spread = {"csd": {"gallery_temperature": "spread", "query_temperature": "spread"}}
    assert loss(spaces=PRETRAINED) == spread
    assert loss() == "csd"
    assert loss(spaces={**PRETRAINED, **MINIMAL["spaces"]}) == "csd"
    assert loss(spaces=PRETRAINED, loss="csd") == "csd"


def test_work_that_did_not_write_its_loss_down_keeps_the_temperatures_of_then() -> None:
    config = StudyConfig.model_validate({**MINIMAL, "spaces": PRETRAINED})
    then = as_begun(config, config.model_dump(mode="json"))
    assert then.alignment_loss == {"csd": {"gallery_temperature": 0.07, "query_temperature": 0.07}}
    now = as_begun(config, config.with_loss().model_dump(mode="json"))
    assert now.alignment_loss == config.with_loss().loss


def test_work_goes_on_at_the_rates_and_by_the_loss_it_was_begun_with() -> None:
    begun = StudyConfig.model_validate({**MINIMAL, "spaces": PRETRAINED}).model_dump(mode="json")
    begun["loss"] = "csd"
    for route in begun["spaces"].values():
        route["training"]["lr"] = 3e-4
    said = {**PRETRAINED["cuts"], "training": {"lr": 2e-3, "epochs": 5}}
    spaces = {**PRETRAINED, "cuts": said}
    config = as_begun(StudyConfig.model_validate({**MINIMAL, "spaces": spaces}), begun)
    assert config.alignment_loss == "csd"
    assert config.spaces["slices"].training.lr == 3e-4
    assert (config.spaces["cuts"].training.lr, config.spaces["cuts"].training.epochs) == (2e-3, 5)


def test_a_loss_of_null_goes_on_as_one_that_is_not_named() -> None:
    unsaid = StudyConfig.model_validate({**MINIMAL, "spaces": PRETRAINED})
    null = StudyConfig.model_validate({**MINIMAL, "spaces": PRETRAINED, "loss": None})
    begun = unsaid.with_loss()
    for again in (unsaid, null):
        assert as_begun(again, begun.model_dump(mode="json")).loss == begun.loss


def test_a_minimal_study_file_gets_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, {**MINIMAL, "budget": {"max_macs": "1.5M"}}))
    assert config.objectives == ("macs", "cross_test")
    assert config.budget.max_macs == 1_500_000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trails": 5}, r"unknown field 'trails' \(did you mean 'trials' or 'tiers'\?\)"),
        (
            {"finish": {"model": 5}},
            r"unknown field 'finish\[1\].model' \(did you mean 'finish\[1\].models'",
        ),
        (
            {"spaces": {"s": {"route": "supernet", "trainning": {}}}},
            r"unknown field 'spaces.s.trainning' \(did you mean 'spaces.s.training'\?",
        ),
        ({"spaces": {"s": {"route": "pruned"}}}, r"'spaces.s.backbone' is missing"),
        (
            supernet(distil=0.5),
            r"'spaces.s.training.distil' \(did you mean 'spaces.s.training.distill'\?",
        ),
        (supernet(distill=1.5), "'spaces.s.training.distill' is 1.5: .* less than or equal to 1"),
        (supernet(progressive=1), "'spaces.s.training.progressive' is 1: .* less than 1"),
        (supernet(sampling="best"), "'spaces.s.training.sampling' is 'best': .* 'attentive'"),
        ({"spaces": {}}, "'spaces' is empty"),
        ({"spaces": {"s": {"route": "random"}}}, "'spaces.s' needs a `route`, one of 'supernet'"),
        ({"spaces": {"s": {}}}, "'spaces.s' needs a `route`"),
        ({"split": {"val": 0.7, "test": 0.7}}, "nothing to train on"),
        ({"sampler": "cmaes"}, "'sampler' is 'cmaes'"),
        ({"trials": "many"}, "'trials' is 'many'"),
        ({"budget": {"max_macs": "50 parsecs"}}, "no budget of MACs"),
        ({"data": None}, "'data' is None"),
        ({"max_macs": "9M"}, r"unknown field 'max_macs' \(did you mean 'budget.max_macs'\?\)"),
        ({"fidelity": "high"}, "unknown field 'fidelity'; remove it"),  # cards have one
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict, sentence: str) -> None:
    path = write(tmp_path, {**MINIMAL, **change})
    with pytest.raises(StudyError, match=sentence) as error:
        load_config(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("a: [", "not valid YAML"), ("- a\n- b\n", "holds list, not a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        load_config(write(tmp_path, content))


def test_environment_variables_are_read_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {**MINIMAL, "data": "$PHOTOS/a"})
    with pytest.raises(StudyError, match=r"\$PHOTOS, which is not set"):
        load_config(path)
    monkeypatch.setenv("PHOTOS", "/there")
    assert load_config(path).data == "/there/a"


def test_a_section_keeps_its_own_defaults_beside_what_is_given(tmp_path: Path) -> None:
    cuts = {"route": "pruned", "backbone": "resnet18", "realign": {"epochs": 1}}
    config = load_config(write(tmp_path, {**MINIMAL, "spaces": {"cuts": cuts}}))
    assert config.spaces["cuts"].realign.model_dump()["ema"] == 0.95


def test_a_supernet_is_trained_by_the_plain_sandwich_rule_unless_told(tmp_path: Path) -> None:
    def training(**fields: object) -> SupernetTraining:
        section = load_config(write(tmp_path, {**MINIMAL, **supernet(**fields)})).spaces["s"]
        assert isinstance(section, SupernetConfig)
        return section.training

    plain = training(epochs=3)
    assert (plain.distill, plain.sampling, plain.progressive) == (0.0, "uniform", 0.0)
    told = training(distill=0.5, sampling="attentive", progressive=0.4)
    assert (told.distill, told.sampling, told.progressive) == (0.5, "attentive", 0.4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no file '.*nothing\.yaml'"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*.yaml")), ids=str)
def test_the_examples_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERYNAS_DATA", "data")
    assert isinstance(load_config(path), StudyConfig)


@pytest.mark.parametrize(
    ("text", "macs"),
    [("50M", 50_000_000), ("1.2G", 1_200_000_000), ("300k", 300_000), (" 7 ", 7), (".5m", 500_000)],
)
def test_budgets_in_words(text: str, macs: int) -> None:
    assert parse_macs(text) == macs


@pytest.mark.parametrize("text", ["", "M", "-5M", "0", "5T", "5 M M"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match="no budget of MACs"):
        parse_macs(text)


@given(st.integers(min_value=1, max_value=10**13))
def test_formatted_macs_read_back_to_three_digits(macs: int) -> None:
    assert parse_macs(format_macs(macs)) == pytest.approx(macs, rel=0.006)
