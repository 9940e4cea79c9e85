"""Architectures are values: equal, hashable, JSON-able, immutable."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchspaces import Architecture, SearchSpaceError

values = (
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(st.dictionaries(st.text(), values))
def test_json_and_pickle_round_trips_keep_value_hash_and_digest(params: Any) -> None:
    architecture = Architecture("mbconv", params)
    for copy in (
        Architecture.from_json(architecture.to_json()),
        pickle.loads(pickle.dumps(architecture)),
    ):
        assert copy == architecture
        assert hash(copy) == hash(architecture)
        assert copy.digest == architecture.digest


def test_order_of_parameters_does_not_matter() -> None:
    one = Architecture("s", {"a": 1, "b": "x"})
    other = Architecture("s", {"b": "x", "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest == other.digest


def test_digest_is_the_same_in_every_process() -> None:
    assert Architecture("mbconv", {"resolution": 32}).digest == "79da59b36884"


def test_another_value_or_space_makes_another_digest() -> None:
    digests = {
        Architecture(space, {"a": value}).digest for space in ("s", "t") for value in (1, 2, "1")
    }
    assert len(digests) == 6


def test_architectures_cannot_be_changed() -> None:
    source = {"a": 1}
    architecture = Architecture("s", source)
    source["a"] = 2
    assert architecture.params["a"] == 1
    with pytest.raises(TypeError):
        architecture.params["a"] = 3


@pytest.mark.parametrize("value", [None, [1], {"x": 1}, float("nan"), float("inf")])
def test_only_finite_json_scalars_are_parameters(value: Any) -> None:
    with pytest.raises(SearchSpaceError, match="parameter 'a'"):
        Architecture("s", {"a": value})


@pytest.mark.parametrize("text", ["", "[]", '{"space": "s"}', '{"space": 1, "params": {}}'])
def test_unreadable_json_is_refused(text: Any) -> None:
    with pytest.raises(SearchSpaceError):
        Architecture.from_json(text)
