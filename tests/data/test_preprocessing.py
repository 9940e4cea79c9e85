"""Preprocessing travels through JSON and refuses what it does not know."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compat.data import Preprocessing, fit_image
from compat.errors import CompatError


def test_round_trip_through_json() -> None:
    value = Preprocessing(size=96, fit="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert Preprocessing(**json.loads(value.model_dump_json())) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 8, "fitt": "crop"}, "unknown field 'fitt'.*did you mean 'fit'"),
        ({"fit": "crop"}, "field 'size' is missing"),
        ({"size": 0}, "'size' is 0"),
        ({"size": 8, "fit": "squach"}, "'fit' is 'squach'.*'crop' or 'squash'"),
        ({"size": 8, "mean": [0.5]}, "'mean.* missing|'mean' is"),
        ({"size": 8, "std": [1, 0, 1]}, "'std.*is 0"),
    ],
)
def test_errors(values: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        Preprocessing(**values)


def test_crop_shows_the_middle_and_squash_everything() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, :8], wide[:, 16:] = 255, 255
    image = Image.fromarray(wide)
    assert np.asarray(fit_image(image, 8, "crop")).max() == 0
    squashed = np.asarray(fit_image(image, 8, "squash"))
    assert squashed[:, 0].min() > 200
    assert squashed[:, 4].max() < 60
