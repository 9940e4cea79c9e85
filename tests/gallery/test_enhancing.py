"""Several looks at an image, one vector: what each step does, and that galleries stay galleries."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from compat.data import ViewRecipe, decode, decode_views, open_data
from compat.errors import CompatError
from compat.gallery import GallerySpace, build_gallery, enhance, load_gallery_model
from compat.gallery.enhancing import STEPS, passes
from compat.gallery.enhancing.crops import Box, cut, whole, zooms
from compat.gallery.enhancing.regions import REGIONS, salient_regions
from compat.gallery.enhancing.weighting import TEMPERATURE, consensus, keypoint_heat, shares
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import load_study_data
from nas.cli import app

FACADES = "facades:classes=6,images=4,size=32,seed=0"
PARTS = SplitConfig(val=0.34, test=0.34, seed=0)  # two classes each
LARGE = 23  # round(16 √2): what an enhanced tinynet takes


@pytest.fixture
def model(tinynet: str) -> Any:
    return load_gallery_model(tinynet)


@pytest.fixture(scope="module")
def facades() -> Any:
    return open_data(FACADES)


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def pictures(count: Any, side: Any = LARGE) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def with_patch(side: Any, rows: Any, columns: Any, colour: Any, background: Any = 128) -> Any:
    picture = np.full((side, side, 3), background, dtype=np.uint8)
    picture[rows, columns] = colour
    return picture


@pytest.mark.parametrize("steps", [["multiscale"], ["regions"], ["regions", "adaptive"], STEPS])
def test_an_enhanced_model_gives_unit_vectors_of_the_same_space(model: Any, steps: Any) -> None:
    enhanced = enhance(model, steps)
    pixels = pictures(7)
    vectors = enhanced.embed(pixels)
    assert vectors.shape == (7, model.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors, enhanced.embed(pixels))
    np.testing.assert_allclose(vectors, enhanced.embed(pixels, batch=1), atol=1e-6)
    assert enhanced.macs == model.macs
    assert enhanced.preprocessing == model.preprocessing.model_copy(update={"resolution": LARGE})
    assert enhanced.spec == f"tinynet:make enhanced by {', '.join(steps)}"


def test_the_name_of_a_model_says_what_was_done(model: Any, tinynet: str) -> None:
    digests = [
        enhance(model, steps).digest
        for steps in ([], ["multiscale"], ["regions"], ["multiscale", "regions"], STEPS)
    ]
    digests.append(enhance(load_gallery_model(f"{tinynet},seed=1"), STEPS).digest)
    assert len(set(digests)) == len(digests)
    assert enhance(model, ["onlyglobal"]).digest == enhance(model, STEPS[::-1]).digest
    assert enhance(model, ["regions", "multiscale", "regions"]).digest == digests[3]


def test_no_steps_leave_the_model_alone(model: Any) -> None:
    assert enhance(model, []) is model
    assert passes([]) == 1


@pytest.mark.parametrize("steps", [["multiscale"], ["regions"], ["onlyglobal"]])
def test_the_network_runs_as_often_as_stated(model: Any, steps: Any) -> None:
    seen = []

    def embed(pixels: Any, *, batch: Any, description: Any) -> Any:
        seen.append(len(pixels))
        return model.embed(pixels, batch=batch, description=description)

    enhance(replace(model, _embed=embed), steps).embed(pictures(9), batch=20)
    assert sum(seen) == 9 * passes(steps)
    assert max(seen) <= 20  # crops are never held for more images than a batch takes


def test_where_all_crops_are_equal_the_direction_is_the_plain_one(model: Any) -> None:
    flat = np.stack([np.full((LARGE, LARGE, 3), (value, 90, 7), np.uint8) for value in (0, 200)])
    plain = unit(model.embed(flat[:, :16, :16]))
    np.testing.assert_allclose(enhance(model, ["onlyglobal"]).embed(flat), plain, atol=1e-6)


def test_multiscale_is_the_mean_over_crops_weighted_by_what_they_show(model: Any) -> None:
    """Rewritten with Pillow alone: the picture is mirrored around by hand, boxes are typed out."""
    pixels = pictures(3)
    expected = []
    for picture in pixels:
        plain = Image.fromarray(picture)
        mirrored = Image.fromarray(np.pad(picture, ((5, 5), (5, 5), (0, 0)), mode="symmetric"))
        narrow = LARGE / math.sqrt(2)
        far, out = LARGE - narrow, LARGE * (math.sqrt(2) - 1) / 2
        parts = [(plain, 0, 0, LARGE), (mirrored, 5 - out, 5 - out, LARGE + 2 * out)]
        parts += [(plain, x, y, narrow) for x in (0, far) for y in (0, far)]
        areas = [23 * 23, 23 * 23, *[16 * 16] * 4]
        total = np.zeros(model.dimension)
        for (image, left, top, side), area in zip(parts, areas, strict=True):
            box = (left, top, left + side, top + side)
            crop = image.resize((16, 16), Image.Resampling.BILINEAR, box=box)
            vector = model.embed(np.asarray(crop)[None])[0].astype(np.float64)
            total += area * vector / np.linalg.norm(vector)
        expected.append(total / np.linalg.norm(total))
    np.testing.assert_allclose(enhance(model, ["multiscale"]).embed(pixels), expected, atol=1e-5)


def test_all_steps_together_equal_a_loop(model: Any) -> None:
    pixels = pictures(3)
    expected = []
    for picture in pixels:
        boxes = [whole(LARGE), *zooms(picture), *salient_regions(picture)]
        heat = keypoint_heat(picture)
        vectors, masses = [], []
        for box in boxes:
            vectors.append(unit(model.embed(cut(picture, box, 16)[None])[0].astype(np.float64)))
            mass = 0.0
            for row in range(LARGE):
                for column in range(LARGE):
                    if round(box.top) <= row < round(box.top + box.side) and round(
                        box.left
                    ) <= column < round(box.left + box.side):
                        mass += heat[row, column]
            masses.append(mass)
        middle = unit(sum(m * v for m, v in zip(masses, vectors, strict=True)))
        weights = [
            m * math.exp(float(v @ middle) / TEMPERATURE)
            for m, v in zip(masses, vectors, strict=True)
        ]
        expected.append(unit(sum(w * v for w, v in zip(weights, vectors, strict=True))))
    np.testing.assert_allclose(enhance(model, STEPS).embed(pixels), expected, atol=1e-5)


def test_the_whole_picture_is_not_resampled_when_it_has_the_size() -> None:
    (picture,) = pictures(1)
    np.testing.assert_array_equal(cut(picture, whole(LARGE), LARGE), picture)
    np.testing.assert_array_equal(cut(picture, Box(3, 5, 16), 16), picture[5:21, 3:19])


def test_beyond_its_border_a_picture_is_mirrored() -> None:
    (picture,) = pictures(1)
    mirrored = np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    around = cut(picture, Box(-4, -4, LARGE + 8), LARGE + 8)
    np.testing.assert_array_equal(around, mirrored)


def test_regions_frame_what_stands_out() -> None:
    picture = with_patch(90, slice(10, 40), slice(50, 80), (250, 20, 20))
    first = salient_regions(picture)[0]
    assert first.left <= 50
    assert first.left + first.side >= 80
    assert first.top <= 10
    assert first.top + first.side >= 40
    assert first.side < 60


@given(seed=st.integers(0, 2**32 - 1), side=st.integers(8, 120), cells=st.integers(1, 6))
@settings(max_examples=20)
def test_there_are_always_as_many_regions_and_they_lie_inside(
    seed: int, side: Any, cells: Any
) -> None:
    colours = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST))
    boxes = salient_regions(picture)
    assert len(boxes) == REGIONS
    for box in boxes:
        assert min(box.left, box.top) >= 0
        assert max(box.left, box.top) + box.side <= side + 1e-9
    if cells == 1:
        assert boxes == [whole(side)] * REGIONS


def test_a_crop_with_corners_in_it_weighs_more() -> None:
    """A chequered patch in the first quarter: only the first of the four corners shows it."""
    chequered = (np.indices((20, 20)).sum(0) // 5 % 2 * 255)[..., None]
    picture = with_patch(80, slice(2, 22), slice(2, 22), chequered)
    boxes = zooms(picture)[1:]
    with_keypoints = shares(keypoint_heat(picture), boxes)
    assert with_keypoints[0] > 0.9
    np.testing.assert_allclose(shares(np.ones((80, 80)), boxes), 0.25)


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_without_corners_weighs_by_area(value: Any) -> None:
    heat = keypoint_heat(np.full((40, 40, 3), value, np.uint8))
    np.testing.assert_allclose(
        shares(heat, [whole(40), Box(0, 0, 20), Box(-10, -10, 60)]), np.array([4, 1, 4]) / 9
    )


def test_an_outlier_loses_weight() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(np.ones((5, 16)) + 0.1 * rng.normal(size=(5, 16)))
    vectors[3] = unit(rng.normal(size=16))
    weights = consensus(vectors[None], np.full((1, 5), 0.2))[0]
    assert weights[3] < 0.05
    assert all(weights[[0, 1, 2, 4]] > 0.2)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 3),
    crops=st.integers(1, 6),
    width=st.integers(1, 5),
)
def test_consensus_gives_shares_in_any_order_of_the_crops(
    seed: int, count: Any, crops: Any, width: Any
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(count, crops, width)))
    weights = rng.random((count, crops)) + 0.01
    weights /= weights.sum(1, keepdims=True)
    found = consensus(vectors, weights)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    order = rng.permutation(crops)
    np.testing.assert_allclose(consensus(vectors[:, order], weights[:, order]), found[:, order])


def test_wrong_steps_are_explained(model: Any) -> None:
    with pytest.raises(CompatError, match=r"no enhancement 'multscale' \(did you mean 'multiscale"):
        enhance(model, ["multscale"])
    with pytest.raises(CompatError, match="keypoints and adaptive weighs crops, but no step makes"):
        enhance(model, ["adaptive", "keypoints"])
    with pytest.raises(CompatError, match=r"takes images of shape \(23, 23, 3\)"):
        enhance(model, ["regions"]).embed(pictures(2, side=16))


VIEWS = ViewRecipe(count=2, seed=3)
TRAIN = np.array([20, 3, 4, 5, 11])


def test_a_gallery_of_an_enhanced_model_is_an_ordinary_one(
    model: Any, facades: Any, tmp_path: Path
) -> None:
    enhanced = enhance(model, ["multiscale", "regions"])
    space = build_gallery(facades, enhanced, tmp_path / "g", views=VIEWS, train=TRAIN)
    space.verify()
    assert (space.dimension, space.manifest.model_macs) == (model.dimension, model.macs)
    assert space.preprocessing.resolution == LARGE
    pixels = decode(facades, LARGE, fit="squash").pixels
    np.testing.assert_allclose(space.vectors, enhanced.embed(pixels), atol=1e-6)
    views = decode_views(facades.take(space.view_rows), VIEWS, LARGE, fit="squash")
    for view in range(2):
        np.testing.assert_allclose(space.view_vectors[view], enhanced.embed(views[view]), atol=1e-6)


def test_an_interrupted_build_is_continued(model: Any, facades: Any, tmp_path: Path) -> None:
    calls = []

    def interrupted(pixels: Any, *, batch: Any, description: Any) -> Any:
        calls.append(len(pixels))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return model.embed(pixels, batch=batch, description=description)

    steps, out = ["multiscale"], tmp_path / "g"
    with pytest.raises(KeyboardInterrupt):
        build_gallery(
            facades, enhance(replace(model, _embed=interrupted), steps), out, block=5, views=VIEWS
        )
    with pytest.raises(CompatError, match=r"unfinished build .* was begun with model = "):
        build_gallery(facades, enhance(model, ["regions"]), out, block=5, views=VIEWS)
    calls.clear()
    calls.extend([0] * 4)  # past the interruption
    space = build_gallery(
        facades, enhance(replace(model, _embed=interrupted), steps), out, block=5, views=VIEWS
    )
    assert sum(calls) == (24 * 3 - 15) * passes(steps)
    whole_build = build_gallery(facades, enhance(model, steps), tmp_path / "h", views=VIEWS)
    assert space.fingerprint == whole_build.fingerprint
    np.testing.assert_array_equal(space.view_vectors, whole_build.view_vectors)


def test_the_command_builds_what_a_study_can_align_to(tmp_path: Path) -> None:
    model = "timm:resnet10t,pretrained=false,resolution=32"
    options = ["--data", FACADES, "--model", model, "--views", "1", "--out", str(tmp_path / "g")]
    options += ["--mixed", "0", "--val", str(PARTS.val), "--test", str(PARTS.test)]
    done = CliRunner().invoke(
        app, ["gallery", "build", *options, "--enhance", "multiscale, regions"]
    )
    assert done.exit_code == 0, done.output
    assert "Passes of the gallery model per image: 10" in done.output
    space = GallerySpace.open(tmp_path / "g")
    assert space.manifest.model == f"{model} enhanced by multiscale, regions"
    assert space.manifest.model_macs == load_gallery_model(model).macs

    data = load_study_data(FACADES, tmp_path / "g", PARTS)
    training = data.training(24)
    assert [part.shape[1:] for part in training.pictures] == [(24, 24, 3)] * 2
    assert training.targets.dimension == space.dimension
    np.testing.assert_allclose(
        training.targets.gallery.numpy(), space.vectors[space.view_rows], atol=1e-6
    )


def test_the_command_explains_an_unknown_step(tmp_path: Path) -> None:
    options = ["--data", FACADES, "--model", "timm:resnet10t,pretrained=false,resolution=32"]
    done = CliRunner().invoke(
        app, ["gallery", "build", *options, "--out", str(tmp_path / "g"), "--enhance", "region"]
    )
    assert done.exit_code != 0
    assert isinstance(done.exception, CompatError)
    assert "did you mean 'regions'" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_enhanced_photographs_are_still_found_by_plain_ones(
    photographs: Any, real_data: Path
) -> None:
    """With a trained network, a single look finds its own picture among the enhanced vectors."""
    weights = real_data / "weights" / "squeezenet1_1_imagenet_tvnames.pth"
    model = load_gallery_model(f"examples.gallery_models:squeezenet,weights={weights}")
    some = photographs.take(np.arange(0, 36, 4))
    plain = unit(model.embed(decode(some, 224).pixels))
    vectors = enhance(model, ["onlyglobal"]).embed(decode(some, 317).pixels)
    assert ((plain @ vectors.T).argmax(1) == np.arange(len(some))).all()
