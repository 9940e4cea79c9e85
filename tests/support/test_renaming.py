"""Fields that had another name once."""

import json
from typing import ClassVar

import pytest
from pydantic import ValidationError

from searchspaces.support.errors import QuerynasError
from searchspaces.support.reading import validated
from searchspaces.support.section import Section


class Wheel(Section):
    """A section whose fields were renamed."""

    RENAMED: ClassVar = {"width": "breadth", "size": "radius"}

    radius: int
    breadth: int = 1


class Cart(Section):
    """A section that holds such a one."""

    wheels: tuple[Wheel, ...]
    size: int = 0


@pytest.mark.parametrize("names", [("radius", "breadth"), ("size", "width"), ("radius", "width")])
def test_both_names_are_read_and_the_new_one_is_written(names: tuple[str, str]) -> None:
    given = {"wheels": [dict(zip(names, (3, 2), strict=True))], "size": 7}
    now = {"wheels": ({"radius": 3, "breadth": 2},), "size": 7}
    assert Cart.model_validate(given).model_dump() == now
    assert Cart.model_validate_json(json.dumps(given)).model_dump() == now


@pytest.mark.parametrize("other", [3, 4])
def test_a_field_under_both_names_is_refused(other: int) -> None:
    given = {"wheels": [{"radius": 3}, {"size": 3, "radius": other}]}
    sentence = "`size` is the old name of `radius`, and both are there; keep one"
    with pytest.raises(QuerynasError, match=rf"the field 'wheels\[2\]': {sentence}\.$"):
        validated(Cart, given, "The cart", error=QuerynasError)


def test_an_old_name_counts_in_its_own_section_only() -> None:
    with pytest.raises(ValidationError, match="width"):
        Cart.model_validate({"wheels": [], "width": 1})


def test_what_is_no_section_is_refused_as_before() -> None:
    with pytest.raises(QuerynasError, match=r"'wheels\[1\]' is 3"):
        validated(Cart, {"wheels": [3]}, "The cart", error=QuerynasError)
