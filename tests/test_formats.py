"""Files of a format that gains, loses or renames a field get a higher version."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import searchspaces
from searchspaces.support.section import Versioned

KNOWN = json.loads(Path(__file__).with_name("formats").joinpath("fields.json").read_text())
"""Version and fields of every format of ours."""


def formats() -> Iterator[type[Versioned]]:
    root = Path(searchspaces.__file__).parents[1]
    for package in ("searchspaces", "compat", "pruning", "nas"):
        for file in sorted((root / package).rglob("*.py")):
            if "(Versioned" in file.read_text("utf-8"):
                name = ".".join(file.relative_to(root).with_suffix("").parts)
                importlib.import_module(name)
    yield from Versioned.__subclasses__()


FORMATS = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in formats()
    if kind.__module__.startswith(("searchspaces", "compat", "pruning", "nas"))
}


def fields(kind: type[Versioned]) -> list[str]:
    """Names of all fields of a format, each after the name of its section."""
    schema = kind.model_json_schema()
    sections = {kind.__qualname__: schema, **schema.get("$defs", {})}
    return sorted(
        f"{section}.{field}"
        for section, content in sections.items()
        for field in content.get("properties", ())
    )


def test_every_format_is_known() -> None:
    assert sorted(FORMATS) == sorted(KNOWN)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_other_fields_have_a_higher_version(name: str) -> None:
    kind = FORMATS[name]
    found = {"version": kind.NEWEST, "fields": fields(kind)}
    assert found == KNOWN[name], (
        "raise NEWEST, have the commit before write files into tests/formats, and note the new "
        "version with its fields in fields.json"
    )
