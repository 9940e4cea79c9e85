"""Preprocessing travels through JSON and refuses what it does not know."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compat.data import Preprocessing, fit_image
from compat.errors import CompatError


def test_round_trip_through_json() -> None:
    value = Preprocessing(resolution=96, fit="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert Preprocessing(**json.loads(value.model_dump_json())) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 8, "fitt": "crop"}, "unknown field 'fitt'.*did you mean 'fit'"),
        ({"fit": "crop"}, "field 'resolution' is missing"),
        ({"resolution": 0}, "'resolution' is 0"),
        ({"size": 0}, "'resolution' is 0"),
        ({"size": 8, "resolution": 8}, "`size` is the old name of `resolution`, and both"),
        ({"resolution": 8, "fit": "squach"}, "'fit' is 'squach'.*'crop' or 'squash'"),
        ({"resolution": 8, "mean": [0.5]}, "'mean.* missing|'mean' is"),
        ({"resolution": 8, "std": [1, 0, 1]}, "'std.*is 0"),
    ],
)
def test_errors(values: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        Preprocessing(**values)


def test_an_old_name_is_read_and_the_new_one_written() -> None:
    old = Preprocessing(**{"size": 96, "fit": "squash"})
    assert old == Preprocessing(resolution=96, fit="squash")
    assert old.model_dump().keys() == {"resolution", "fit", "mean", "std"}


def test_crop_shows_the_middle_and_squash_everything() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, :8], wide[:, 16:] = 255, 255
    image = Image.fromarray(wide)
    assert np.asarray(fit_image(image, 8, "crop")).max() == 0
    squashed = np.asarray(fit_image(image, 8, "squash"))
    assert squashed[:, 0].min() > 200
    assert squashed[:, 4].max() < 60
