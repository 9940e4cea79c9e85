"""Mixed views: which images they are of, what they show of each, and what is trained on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from compat.data import ViewRecipe, decode, decode_views, open_data, open_facades, split
from compat.data.mixing import mixed
from compat.data.views import partners
from compat.errors import CompatError
from compat.gallery import build_gallery, load_gallery_model
from compat.gallery.deriving import derive_gallery
from compat.tasks.embedded import Embedded
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData, load_study_data
from nas.alignment.aligner import Aligner
from nas.config.study import StudyConfig

RECIPE = ViewRecipe(count=5, mixed=3, seed=4)
DATA = "facades:classes=8,images=6,size=32,seed=0"
MODEL = "timm:test_resnet,pretrained=false,resolution=32"


def facades(**options: Any) -> Any:
    return open_facades(**({"classes": 4, "images": 3, "size": 64} | options))


def test_the_first_views_are_those_of_a_recipe_without_mixed_ones(tmp_path: Path) -> None:
    images = facades()
    views = decode_views(images, RECIPE, 24, cache=tmp_path)
    alone = decode_views(images, ViewRecipe(count=2, seed=4), 24, cache=tmp_path)
    assert views.shape == (5, 12, 24, 24, 3)
    np.testing.assert_array_equal(views[:2], alone)
    again = decode_views(images, RECIPE, 24, cache=tmp_path / "again")
    np.testing.assert_array_equal(views, again)
    assert len({view.tobytes() for view in views.reshape(60, -1)}) == 60


def test_some_of_the_images_have_the_views_that_they_have_among_all(tmp_path: Path) -> None:
    images = facades()
    all_views = decode_views(images, RECIPE, 16, cache=tmp_path)
    names = np.random.default_rng(0).permutation(images.ids)
    part = images.take([7, 2, 9, 4])
    views = decode_views(part, RECIPE, 16, cache=tmp_path, among=names)
    chosen = partners(images, RECIPE, cache=tmp_path)[:, [7, 2, 9, 4]]
    there = np.isin(chosen, [7, 2, 9, 4])
    assert 0 < there.sum() < there.size
    np.testing.assert_array_equal(partners(part, RECIPE, names, cache=tmp_path) >= 0, there)
    np.testing.assert_array_equal(views[2:][there], all_views[2:][:, [7, 2, 9, 4]][there])
    plain = decode(part, 16, cache=tmp_path).pixels
    np.testing.assert_array_equal(views[2:][~there], np.stack([plain] * 3)[~there])


def test_sizes_show_the_same_picture(tmp_path: Path) -> None:
    images = facades(size=128)
    large = decode_views(images, RECIPE, 64, cache=tmp_path)
    small = decode_views(images, RECIPE, 16, cache=tmp_path)
    flat = [Image.fromarray(view) for view in large.reshape(-1, 64, 64, 3)]
    shrunk = np.stack([np.asarray(each.resize((16, 16), Image.Resampling.BOX)) for each in flat])
    apart = np.abs(shrunk.reshape(small.shape).astype(int) - small).mean(axis=(2, 3, 4))
    assert np.median(apart) < 8
    other = np.abs(shrunk.reshape(small.shape)[:, ::-1].astype(int) - small).mean(axis=(2, 3, 4))
    assert (apart < other).mean() > 0.95


@given(seed=st.integers(0, 2**32), side=st.integers(24, 96), turned=st.booleans())
def test_the_first_picture_shows_on_half_of_it_or_more(seed: int, side: int, turned: bool) -> None:
    random = np.random.default_rng(seed)
    pictures = [Image.new("RGB", (side, side), colour) for colour in ((9, 80, 150), (200, 90, 20))]
    result = np.asarray(mixed((pictures[0], pictures[1]), random, turned=turned))
    assert result.shape == (side, side, 3)
    colours, counts = np.unique(result.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) == 2
    assert 0.3 - 4 / side <= counts.min() / side**2 <= 0.5 + 4 / side


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 2, "mixed": 3}, "'mixed' is 3 of 2 views: expected no more"),
        ({"count": 2, "mixed": -1}, "'mixed' is -1"),
    ],
)
def test_bad_recipes(fields: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        ViewRecipe(**fields)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    """Façades, in a gallery with three views, two of them mixed, of training and six other ones."""
    images, out = open_data(DATA), tmp_path_factory.mktemp("mixed") / "gallery"
    held_out = np.setdiff1d(np.arange(len(images)), of_training())
    viewed = np.union1d(of_training(), held_out[:6])
    recipe = ViewRecipe(count=3, mixed=2)
    build_gallery(images, load_gallery_model(MODEL), out, views=recipe, train=viewed)
    return load_study_data(DATA, out, SplitConfig(by="image"))


def of_training() -> np.ndarray:
    return split(open_data(DATA), by="image").train


def test_training_pictures_have_the_vectors_of_what_they_show(study: StudyData) -> None:
    """Also where a mixed view would show an image that is held out: it is left out."""
    training = study.training(32)
    rows = np.arange(4 * len(training))
    seen = load_gallery_model(MODEL).embed(training.pictured(rows))
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    np.testing.assert_allclose(seen, training.targets.vectors, atol=1e-4)


def test_other_images_may_have_more_views_or_none(study: StudyData, tmp_path: Path) -> None:
    images, model = (
        open_data("facades:classes=2,images=3,size=32,seed=1"),
        load_gallery_model(MODEL),
    )
    recipe = ViewRecipe(count=4)
    space = build_gallery(images, model, tmp_path / "g", views=recipe, train=[0, 2, 5])
    training = study.training(32, [Embedded(images, space)])
    assert (len(training.pictures), training.mixed, training.further) == (7, 2, 6)
    seen = model.embed(training.pictured(np.arange(7 * len(training))))
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    np.testing.assert_allclose(seen, training.targets.vectors, atol=1e-4)
    assert len(training.alone().pictures) == 5


def test_mixed_views_have_no_label_and_losses_of_labels_do_not_see_them(study: StudyData) -> None:
    training = study.training(32)
    labels = training.targets.labels.view(4, -1)
    assert (labels[2:] == -1).all()
    assert (labels[:2] >= 0).all()
    alone = training.alone()
    assert (len(alone.pictures), len(alone.targets.vectors)) == (2, 2 * len(training))
    assert alone.alone() is alone
    settings: dict[str, Any] = {
        "data": DATA,
        "gallery": str(study.gallery.path),
        "spaces": {"zoo": {"route": "standalone", "space": "timm"}},
    }
    for loss, pictures in (("bct", 2), ("csd", 4)):
        config = StudyConfig.model_validate(settings | {"loss": loss})
        aligner = Aligner.of(config, training, study.val, seed=0)
        assert len(aligner.data.pictures) == pictures
        assert aligner.new_loss() is not None


def test_galleries_with_mixed_views_of_other_images_have_no_common_views(
    study: StudyData, tmp_path: Path
) -> None:
    images, model = open_data(DATA), load_gallery_model(MODEL)
    recipe = study.gallery.view_recipe
    fewer = build_gallery(images, model, tmp_path / "g", views=recipe, train=of_training())
    with pytest.raises(CompatError, match="hold views of other images"):
        derive_gallery((fewer, study.gallery), tmp_path / "no", np.add, derivation={"step": "sum"})
