"""Studies of images that have no labels: what is held out, and what agreement is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat.data import ViewRecipe, open_data, split
from compat.gallery import build_gallery, load_gallery_model
from compat.tasks import SplitConfig, StudyData, load_study_data
from nas.config.study import StudyConfig, load_config
from nas.deployment.card import read_card
from nas.errors import StudyError
from nas.recipes import Nest, NestConfig
from nas.recipes.prune_run import prune
from nas.recipes.prune_settings import PruneConfig
from nas.statistics.concordance import concordance
from nas.study.exports import export
from nas.study.run import Run
from nas.study.trials import search
from searchspaces.support.errors import QuerynasError

Cli = Callable[..., tuple[int, str, str]]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]

TRAINING = {"epochs": 1, "batch": 32}


@pytest.fixture(scope="session")
def study(flat: Path, tiny_study: dict[str, Any]) -> dict[str, Any]:
    """The small study with its supernet alone, on the flat folder."""
    return {
        **tiny_study,
        "data": str(flat / "photos"),
        "gallery": str(flat / "gallery"),
        "trials": 3,
        "start": 2,
        "spaces": {"slices": tiny_study["spaces"]["slices"]},
    }


@pytest.fixture(scope="session")
def run(study: dict[str, Any], made_once: MadeOnce) -> Run:
    """It, finished; read it, do not change it."""
    config = StudyConfig.model_validate(study)
    return Run.open(made_once("flat-run", lambda path: search(config, path)))


@pytest.fixture(scope="session")
def data(flat: Path) -> StudyData:
    return load_study_data(str(flat / "photos"), flat / "gallery", SplitConfig())


def of_ten(asking: np.ndarray, answering: np.ndarray, own: list[int]) -> tuple[float, float]:
    """Agreement and overlap of queries that stand in the rows ``own`` of the gallery, naively."""
    precisions, common = [], []
    for query, row in zip(asking, own, strict=True):
        others = [i for i in range(len(answering)) if i != row]
        by_model = sorted(others, key=lambda i: -(query @ answering[i]))
        right = set(sorted(others, key=lambda i: -(answering[row] @ answering[i]))[:10])
        hits = [place for place, i in enumerate(by_model, 1) if i in right]
        precisions.append(np.mean([found / place for found, place in enumerate(hits, 1)]))
        common.append(len(right & set(by_model[:10])) / 10)
    return float(np.mean(precisions)), float(np.mean(common))


def test_agreement_is_that_of_a_naive_ranking(data: StudyData) -> None:
    task = data.val
    rng = np.random.default_rng(0)
    queries = task.vectors[task.retrieval.queries]
    asking = queries + rng.normal(0, 0.02, queries.shape).astype(np.float32)
    asking /= np.linalg.norm(asking, axis=1, keepdims=True)
    found = task.cross_test(asking)
    agreement, overlap = of_ten(asking, task.vectors, task.retrieval.queries.tolist())
    assert found.map == pytest.approx(agreement, abs=1e-3)
    assert found.precision[10] == pytest.approx(overlap, abs=5e-3)
    assert 0.1 < agreement < 0.95
    assert task.paragon.map == pytest.approx(1, abs=2e-3)


def test_queries_are_held_out_and_search_everything(data: StudyData) -> None:
    assert data.judge == "ranking"
    assert data.unseen == "queries"
    for part in (data.splits.val, data.splits.test):
        assert not set(part.queries) & set(data.splits.train)
        assert len(part.gallery) == len(data.images) == 128
    training = data.training(24)
    assert len(training) == len(data.splits.train)
    assert len(training.pictures) == 2
    assert (training.targets.labels == -1).all()
    assert "labels" not in training.targets.provides


def test_a_study_without_labels_chooses_by_agreement(run: Run) -> None:
    assert run.config.objectives == ("macs", "agreement")
    trials = run.study.get_trials()
    for record in run.records():
        assert record.judge == "ranking"
        assert record.cross_test is record.self_test is None
        assert record.accuracy == record.agreement == trials[record.trial].values[1]
        assert record.overlap is not None
        assert record.interval[0] <= record.accuracy <= record.interval[1]
    assert concordance(run.records()) is None


def test_front_card_and_report_speak_of_agreement(run: Run, cli: Cli, tmp_path: Path) -> None:
    _, printed, _ = cli("pareto", run.path)
    assert "agreement" in printed
    assert "validation queries" in printed
    assert "cross-test" not in printed
    done = export(run, run.front()[-1], "safetensors", tmp_path / "m.safetensors")
    assert read_card(done.path).judge == "ranking"
    code, printed, _ = cli(
        "evaluate", done.path, "--gallery", run.config.gallery, "--data", run.config.data
    )
    assert (code, "on ranking" in printed) == (0, True)
    code, printed, _ = cli(
        *("compare", done.path, done.path, "--gallery", run.config.gallery),
        *("--data", run.config.data),
    )
    assert (code, "p = 1.0000" in printed) == (0, True)
    cli("report", run.path)
    page = (run.path / "report.html").read_text()
    assert "agreement mAP, validation" in page
    assert "Best agreement" in page
    assert "what the gallery network finds first, 10 images" in page


def test_objectives_that_ask_for_labels_are_refused(study: dict[str, Any], tmp_path: Path) -> None:
    config = StudyConfig.model_validate({**study, "objectives": ["macs", "cross_test"]})
    with pytest.raises(StudyError, match=r"ask for labels, but .* `objectives: \[macs, agreement"):
        search(config, tmp_path / "run")


def test_the_example_is_a_study_without_labels() -> None:
    config = load_config("examples/no-labels.yaml")
    assert (config.judge, config.split.by) == ("ranking", "image")
    assert config.without_labels() == config
    assert config.unlabelled[0].model == "timm:tf_efficientnet_lite2"


def test_losses_that_ask_for_labels_are_refused(study: dict[str, Any], tmp_path: Path) -> None:
    config = StudyConfig.model_validate({**study, "loss": "bct"})
    with pytest.raises(QuerynasError, match=r"'bct'.*labels"):
        search(config, tmp_path / "run")


def test_too_few_images_have_no_first_ten(tmp_path: Path, flat: Path) -> None:
    (tmp_path / "few").mkdir()
    for file in sorted((flat / "photos").iterdir())[:20]:
        (tmp_path / "few" / file.name).symlink_to(file)
    model = load_gallery_model("timm:test_resnet,pretrained=false,resolution=32")
    build_gallery(open_data(tmp_path / "few"), model, tmp_path / "gallery")
    with pytest.raises(QuerynasError, match="search 20 images, expected more than 20"):
        load_study_data(str(tmp_path / "few"), tmp_path / "gallery", SplitConfig())


@pytest.mark.usefixtures("no_onnx")
def test_prunings_and_nests_need_no_labels(flat: Path, tmp_path: Path) -> None:
    common = {
        "model": "test_resnet",
        "pretrained": False,
        "resolution": 32,
        "data": str(flat / "photos"),
        "gallery": str(flat / "gallery"),
    }
    done = prune(
        PruneConfig.model_validate(
            {
                **common,
                "target": "0.5x",
                "criterion": "magnitude",
                "rounds": 1,
                "align": TRAINING,
                "realign": TRAINING,
                "finish": None,
            }
        ),
        tmp_path / "pruned",
    )
    assert done.run.config.objectives == ("macs", "agreement")
    assert done.files[0].card.judge == "ranking"
    nest = Nest.create(
        tmp_path / "nest",
        NestConfig.model_validate({**common, "capacities": [0.5, 1], "training": TRAINING}),
    )
    assert nest.train().names[-1] == "gallery"
    assert nest.data.judge == "ranking"


def test_encoders_are_adapted_without_labels(flat: Path, cli: Cli) -> None:
    code, printed, _ = cli(
        *("adapt", "timm:test_resnet", "--no-pretrained", "--resolution", 32, "--map", "ridge"),
        *("--gallery", flat / "gallery", "--data", flat / "photos"),
    )
    assert code == 0
    assert "validation queries" in printed
    assert "agreement mAP 0." in printed


def test_with_labels_both_accuracies_are_measured(
    tiny_study: dict[str, Any], gallery_by_image: Path, tmp_path: Path
) -> None:
    study = {
        **tiny_study,
        "gallery": str(gallery_by_image),
        "split": {"by": "image"},
        "objectives": ["macs", "agreement"],
        "trials": 6,
        "spaces": {"slices": tiny_study["spaces"]["slices"]},
        "finish": [],
    }
    run = search(StudyConfig.model_validate(study), tmp_path / "run")
    records = run.records()
    assert all(r.judge == "ranking" and r.cross_test is not None for r in records)
    assert "the 6 scored candidates" in (concordance(records) or "")
    other = StudyConfig.model_validate({**study, "objectives": ["macs", "cross_test"]})
    by_labels = search(other, tmp_path / "labels", trials=2)
    assert all(r.judge == "labels" and r.agreement is not None for r in by_labels.records())


@pytest.fixture(scope="session")
def gallery_by_image(made_once: MadeOnce, tiny_study: dict[str, Any]) -> Path:
    """The façades of the small study, with views of what is trained on when split by image."""

    def make(out: Path) -> None:
        images = open_data(tiny_study["data"])
        model = load_gallery_model("timm:test_resnet,pretrained=false,resolution=32")
        train = split(images, by="image").train
        build_gallery(images, model, out, views=ViewRecipe(count=1), train=train)

    return made_once("gallery-by-image", make)


def test_views_of_another_split_are_refused(
    tiny_study: dict[str, Any], gallery_by_image: Path
) -> None:
    with pytest.raises(QuerynasError, match=r"by class\); give the study the `split`"):
        load_study_data(tiny_study["data"], gallery_by_image, SplitConfig())
