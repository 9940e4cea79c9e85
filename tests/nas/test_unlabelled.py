"""Images without labels beside those of a study's data: more training pictures, nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from compat.adaptation import fit_map
from compat.data import ViewRecipe, open_data
from compat.gallery import GallerySpace, build_gallery, load_gallery_model
from compat.targets import AlignmentTargets
from compat.tasks import (
    SplitConfig,
    StudyData,
    UnlabelledConfig,
    further,
    load_study_data,
    open_unlabelled,
)
from compat.tasks.embedded import Embedded
from compat.tasks.training_set import TrainingSet
from nas.alignment import mapping
from nas.alignment.aligner import Aligner
from nas.alignment.start import chosen_rows
from nas.config.study import StudyConfig
from nas.recipes import Nest, NestConfig
from nas.study.run import Run
from nas.study.trials import search
from searchspaces import timm_query_model
from searchspaces.support.errors import QuerynasError
from searchspaces.support.seeding import seeded

Cli = Callable[..., tuple[int, str, str]]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]

MODEL = "timm:test_resnet,pretrained=false,resolution=32"


@pytest.fixture(scope="session")
def more(made_once: MadeOnce) -> Path:
    """Other façades in a flat folder, with a gallery that has two views of some of them."""

    def make(out: Path) -> None:
        (out / "photos").mkdir(parents=True)
        drawn = open_data("facades:classes=4,images=6,size=32,seed=1")
        for index in range(len(drawn)):
            drawn.source.load(index).save(out / "photos" / f"{index:02}.png")
        images = open_data(out / "photos")
        views = ViewRecipe(count=2, seed=3)
        model = load_gallery_model(MODEL)
        build_gallery(images, model, out / "gallery", views=views, train=np.arange(0, 24, 3))

    return made_once("more", make)


@pytest.fixture(scope="session")
def data(tiny_study: dict[str, Any], gallery: Path) -> StudyData:
    return load_study_data(tiny_study["data"], gallery, SplitConfig())


def with_gallery(more: Path) -> UnlabelledConfig:
    return UnlabelledConfig(data=str(more / "photos"), gallery=str(more / "gallery"))


def test_they_are_training_pictures_with_their_own_vectors(
    data: StudyData, more: Path, tmp_path: Path
) -> None:
    embedded = open_unlabelled([with_gallery(more)], data, tmp_path)
    alone, together = data.training(32), data.training(32, embedded)
    own, count = len(alone), len(alone) + 24
    assert len(together) == count
    assert together.targets.labels.tolist() == 3 * (alone.targets.labels[:own].tolist() + 24 * [-1])
    assert "labels" not in together.targets.provides
    torch.testing.assert_close(together.targets.prototypes(), alone.targets.prototypes())
    model = load_gallery_model(MODEL)
    rows = np.arange(3 * count)
    seen = model.embed(together.pictured(rows))
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    np.testing.assert_allclose(seen, together.targets.vectors, atol=1e-4)
    shown = together.pictured(np.arange(count)), together.pictured(np.arange(count, 2 * count))
    changed = [bool((a != b).any()) for a, b in zip(*shown, strict=True)]
    assert sum(changed[own:]) == 8  # those that have views
    images, vectors = together.sample(count, seed=0)
    assert images.shape == (count, 32, 32, 3)
    torch.testing.assert_close(vectors, together.targets.gallery)


@given(own=st.integers(1, 40), further=st.integers(0, 90), views=st.integers(1, 3))
def test_they_never_outnumber_the_data_sets_own(own: int, further: int, views: int) -> None:
    count = own + further
    vectors = torch.eye(count)
    pictures = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    targets = AlignmentTargets(vectors.repeat(views, 1), vectors, torch.zeros(count * views))
    training = TrainingSet((pictures,) * views, targets, further=further)
    shown = [
        torch.cat([batch.vectors.argmax(dim=1) for _, batch in epoch]).tolist()
        for epoch in (training.epoch(1, seed=s, device=torch.device("cpu")) for s in range(3))
    ]
    for each in shown:
        assert len(set(each)) == len(each) == training.shown == own + min(own, further)
        assert set(range(own)) <= set(each)
    if further > own + 30:
        assert len({*shown[0], *shown[1], *shown[2]}) > training.shown  # drawn anew
    rows = chosen_rows(training, seed=0) % count
    assert np.bincount(rows[rows < own], minlength=own).tolist() == [views] * own
    assert (rows >= own).sum() == min(own * views, further * views)
    images, _ = training.sample(count, seed=0)
    assert len(images) == training.shown


def test_statistics_are_those_of_the_data_sets_own_images(
    data: StudyData, more: Path, tmp_path: Path
) -> None:
    embedded = open_unlabelled([with_gallery(more)], data, tmp_path)

    def fitted(*further: Embedded, whole: bool = False) -> dict[str, torch.Tensor]:
        training = data.training(32, further)
        aligner = Aligner(training, data.val, "csd", seed=0, device=torch.device("cpu"))
        with seeded(0):
            model = timm_query_model(
                "test_resnet", data.gallery.dimension, resolution=32, pretrained=False
            )
        before = {name: each.clone() for name, each in model.named_buffers()}
        aligner.refit(model, 200, whole=whole)
        kept = all(torch.equal(each, before[name]) for name, each in model.named_buffers())
        assert kept == whole
        return model.state_dict()

    alone, together = fitted(), fitted(*embedded)
    assert all(torch.equal(together[name], each) for name, each in alone.items())
    name = "projection.linear.weight"  # with statistics that are kept it sees them all
    assert not torch.equal(fitted(whole=True)[name], fitted(*embedded, whole=True)[name])


def test_held_out_images_are_left_out(flat: Path, tmp_path: Path) -> None:
    photos, gallery = str(flat / "photos"), flat / "gallery"
    study = load_study_data(photos, gallery, SplitConfig())
    (found,) = open_unlabelled(
        [UnlabelledConfig(data=photos, gallery=str(gallery))], study, tmp_path
    )
    assert found.images.ids.tolist() == study.images.ids[study.splits.train].tolist()


def test_a_model_embeds_them_once_into_the_run(
    tiny_study: dict[str, Any], more: Path, tmp_path: Path
) -> None:
    study = {
        **tiny_study,
        "spaces": {"slices": tiny_study["spaces"]["slices"]},
        "trials": 1,
        "start": 1,
        "finish": [],
        "unlabelled": [{"data": str(more / "photos"), "model": MODEL}],
    }
    config = StudyConfig.model_validate(study)
    run = search(config, tmp_path / "run")
    space = GallerySpace.open(tmp_path / "run" / "unlabelled" / "0")
    assert len(space) == 24
    assert space.view_recipe == run.data.gallery.view_recipe
    assert len(run.aligner.data) == len(run.data.splits.train) + 24
    before = (space.path / "gallery.json").stat().st_mtime_ns
    search(config, tmp_path / "run", trials=2)
    assert (space.path / "gallery.json").stat().st_mtime_ns == before
    shutil.rmtree(space.path)
    with pytest.raises(QuerynasError, match="repeat the command that began this folder"):
        _ = Run.open(tmp_path / "run").aligner


def test_nests_take_them_too(tiny_study: dict[str, Any], more: Path, tmp_path: Path) -> None:
    content = {
        "model": "test_resnet",
        "pretrained": False,
        "resolution": 32,
        "data": tiny_study["data"],
        "gallery": tiny_study["gallery"],
        "capacities": [0.5, 1],
        "training": {"epochs": 1, "batch": 32},
        "unlabelled": [with_gallery(more).model_dump()],
    }
    Nest.create(tmp_path / "nest", NestConfig.model_validate(content)).train()
    assert Nest.open(tmp_path / "nest").config.unlabelled == (with_gallery(more),)


@pytest.fixture
def fitted_to(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of features and gallery vectors each map was fitted to."""
    counts: list[int] = []

    def spied(name: Any, pairs: Any, *given: Any, **named: Any) -> Any:
        counts.append(len(pairs.features))
        return fit_map(name, pairs, *given, **named)

    monkeypatch.setattr(mapping, "fit_map", spied)
    return counts


def test_untrained_backbones_of_a_study_are_mapped_by_them_too(
    tiny_study: dict[str, Any], more: Path, tmp_path: Path, fitted_to: list[int]
) -> None:
    with seeded(0):
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    backbone = {
        "route": "standalone",
        "space": "timm",
        "training": {"epochs": 1, "batch": 64},
        "options": {
            "backbones": ["test_resnet"],
            "resolutions": [32],
            "checkpoint": str(tmp_path / "weights.safetensors"),
        },
    }
    study = {**tiny_study, "spaces": {"whole": backbone}, "trials": 1, "start": 1, "finish": []}
    entry = with_gallery(more).model_dump()
    run = search(StudyConfig.model_validate({**study, "unlabelled": [entry]}), tmp_path / "run")
    assert any(record.adapted for record in run.records())
    assert fitted_to == 2 * [len(run.aligner.data.targets.vectors)]
    assert fitted_to[0] == len(run.aligner.data.pictures) * (len(run.data.splits.train) + 24)


@pytest.mark.parametrize("source", ["gallery", "model"])
def test_adapt_takes_them(
    tiny_study: dict[str, Any],
    data: StudyData,
    more: Path,
    source: str,
    cli: Cli,
    fitted_to: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path / "cache"))
    vectors = more / "gallery" if source == "gallery" else MODEL
    given = ["adapt", "test_resnet", "--no-pretrained", "--resolution", "32", "--map", "ridge"]
    given += ["--gallery", tiny_study["gallery"], "--data", tiny_study["data"], "--json"]
    plain = cli(*given)
    entry = f'{{data: {more / "photos"}, {source}: "{vectors}"}}'
    with_more = cli(*given, "--unlabelled", entry)
    assert (plain[0], with_more[0]) == (0, 0), with_more[2]
    views, alone = len(data.training(32).pictures), len(data.splits.train)
    most = 3 if source == "gallery" else views  # those of `more` have two
    assert fitted_to == [views * alone, most * (alone + 24)]
    monkeypatch.setattr(further, "build_gallery", None)  # nothing is embedded a second time
    assert cli(*given, "--unlabelled", entry)[:2] == with_more[:2]


def test_other_images_under_the_same_name_are_embedded_anew(data: StudyData, more: Path) -> None:
    def folder() -> Path:
        entry = UnlabelledConfig(data=str(more / "photos"), model=MODEL)
        return further.folder_of_unlabelled([entry], data.gallery)

    before, picture = folder(), more / "photos" / "00.png"
    content = picture.read_bytes()
    picture.write_bytes((more / "photos" / "01.png").read_bytes())
    try:
        assert folder() != before
    finally:
        picture.write_bytes(content)
    assert folder() == before


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("photos", "'photos' needs vectors, but has neither of `gallery`"),
        ({"data": "photos", "gallery": "g", "model": "m"}, "has both of `gallery`"),
        ({"gallery": "g"}, "data"),
        ({"data": "photos", "galery": "g"}, "did you mean"),
    ],
)
def test_entries_without_vectors_are_refused(
    tiny_study: dict[str, Any], entry: Any, message: str, tmp_path: Path, cli: Cli
) -> None:
    import yaml

    study = {**tiny_study, "unlabelled": [entry]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    code, _, complaint = cli("search", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert (code, message in complaint) == (2, True), complaint
    assert len(complaint.strip()) <= 320


def test_other_spaces_are_refused(
    data: StudyData, more: Path, gallery_of: Callable[[str], Path], tmp_path: Path
) -> None:
    other = gallery_of("test_vit")
    wrong = UnlabelledConfig(data=data.images.spec, gallery=str(other))
    with pytest.raises(QuerynasError, match="is not of the space of"):
        open_unlabelled([wrong], data, tmp_path)


def test_another_model_is_refused(tiny_study: dict[str, Any], more: Path, tmp_path: Path) -> None:
    entry = {"data": str(more / "photos"), "model": MODEL.replace("test_resnet", "resnet18")}
    config = StudyConfig.model_validate({**tiny_study, "unlabelled": [entry]})
    with pytest.raises(QuerynasError, match="is not that of the gallery"):
        search(config, tmp_path / "run")


def test_losses_of_labels_say_so(tiny_study: dict[str, Any], more: Path, tmp_path: Path) -> None:
    entry = with_gallery(more).model_dump()
    config = StudyConfig.model_validate({**tiny_study, "loss": "bct", "unlabelled": [entry]})
    with pytest.raises(QuerynasError, match=r"'bct'.* none as `unlabelled`"):
        search(config, tmp_path / "run")
