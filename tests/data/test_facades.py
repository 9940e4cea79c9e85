"""The synthetic set: the same seed gives the same buildings, which tell apart and vary."""

import pickle
from typing import Any

import numpy as np
import pytest

from compat.data import open_data, open_facades


def pixels(images: Any) -> Any:
    return np.stack([np.asarray(images.source.load(i)) for i in range(len(images))])


def test_names_say_that_it_is_synthetic() -> None:
    images = open_data("facades:classes=3,images=2,size=32,seed=5")
    assert "synthetic" in images.name
    assert "synthetic" in open_facades.__doc__
    assert images.ids.tolist()[:3] == [
        "building-0000/0000",
        "building-0000/0001",
        "building-0001/0000",
    ]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert open_data(images.spec).ids.tolist() == images.ids.tolist()


def test_defaults() -> None:
    images = open_data("facades")
    assert (len(images), len(images.classes)) == (1600, 80)
    assert images.source.load(1599).size == (64, 64)


@pytest.mark.parametrize("size", [16, 33, 64])
def test_rendering_is_deterministic_in_any_order(size: Any) -> None:
    images = open_facades(classes=3, images=2, size=size, seed=1)
    first = pixels(images)
    assert first.shape == (6, size, size, 3)
    reversed_order = images.take(range(5, -1, -1))
    travelled = pickle.loads(pickle.dumps(reversed_order))
    np.testing.assert_array_equal(pixels(travelled)[::-1], first)


def test_a_building_does_not_depend_on_the_size_of_the_set() -> None:
    few = open_facades(classes=2, images=2, size=32)
    many = open_facades(classes=9, images=5, size=32)
    np.testing.assert_array_equal(np.asarray(few.source.load(2)), np.asarray(many.source.load(5)))
    assert few.source.digest(2) == many.source.digest(5)


def test_seeds_and_positions_give_other_images() -> None:
    images = open_facades(classes=6, images=4, size=32)
    others = open_facades(classes=6, images=4, size=32, seed=1)
    shown = np.concatenate([pixels(images), pixels(others)])
    assert len({image.tobytes() for image in shown}) == 48
    digests = {set_.source.digest(i) for set_ in (images, others) for i in range(24)}
    assert len(digests) == 48


def test_images_of_a_building_are_alike_but_not_equal() -> None:
    """By colour alone, a building finds itself more often than chance and far from always."""
    images = open_facades(classes=16, images=10, size=48)
    shown = pixels(images).astype(np.float64)
    centre = shown[:, 12:36, 12:36].mean(axis=(1, 2))
    features = centre - centre.mean(axis=1, keepdims=True)
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    right = (images.labels[distances.argmin(axis=1)] == images.labels).mean()
    assert 2 / 16 < right < 0.7
