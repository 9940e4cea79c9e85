"""Spaces are found by name and made from plain options."""

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

import searchspaces.space
from searchspaces import (
    MBConvSpace,
    SearchSpace,
    SearchSpaceError,
    create_space,
    register_space,
    space_names,
)


def test_the_built_in_space_is_a_search_space() -> None:
    space = create_space("mbconv", resolutions=[16, 24])
    assert isinstance(space, MBConvSpace)
    assert isinstance(space, SearchSpace)
    assert space.resolutions == (16, 24)
    assert "mbconv" in space_names()


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(SearchSpaceError, match="no search space 'mbcov': did you mean 'mbconv'"):
        create_space("mbcov")


def test_an_unknown_option_suggests_near_ones() -> None:
    with pytest.raises(SearchSpaceError, match="'resolution': did you mean 'resolutions'"):
        create_space("mbconv", resolution=[32])


def test_a_missing_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchspaces.space, "_REGISTRY", {})

    @register_space("needy")
    def needy(backbone: Any) -> Any:
        return backbone

    with pytest.raises(SearchSpaceError, match="needs the option 'backbone'"):
        create_space("needy")
    assert create_space("needy", backbone="b") == "b"


def test_a_name_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchspaces.space, "_REGISTRY", {})
    register_space("mine")(MBConvSpace)
    register_space("mine")(MBConvSpace)
    with pytest.raises(SearchSpaceError, match="two search spaces are called 'mine'"):
        register_space("mine")(dict)


def test_installed_packages_add_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "searchspaces.mbconv:MBConvSpace", searchspaces.space.ENTRY_POINTS)

    def entry_points(**wanted: Any) -> Any:
        return EntryPoints([point]).select(**wanted)

    monkeypatch.setattr(searchspaces.space, "entry_points", entry_points)
    assert "theirs" in space_names()
    assert create_space("theirs", se=True) == MBConvSpace(se=True)
