"""What pydantic found wrong, in one sentence for people."""

import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from searchspaces.support.naming import near_matches

_LONGEST = 80  # characters of a value that are quoted


def problem_of(error: ValidationError, model: Any) -> str:
    """Return the first problem, an unknown field before all others.

    Args:
        error: What pydantic raised.
        model: The model, or the type of a `TypeAdapter`, that was validated; names of fields are
            suggested from the section that the problem is in.

    Returns:
        A clause with a field's full path, what was found and what to do: "unknown field 'trails'
        (did you mean 'trials'?); rename or remove it".
    """
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path, sections = _walk(model, problem["loc"])
    field = f"the field '{path}'" if path else "the whole file"
    match problem["type"]:
        case "extra_forbidden":
            near = _near(model, path, sections)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            return f"unknown field '{path}'{hint}; {'rename or ' if hint else ''}remove it"
        case "missing":
            return f"{field} is missing; add it"
        case "union_tag_not_found" | "union_tag_invalid":
            tags = problem["ctx"].get("expected_tags", "")
            name = problem["ctx"]["discriminator"].strip("'")
            return f"{field} needs a `{name}`{f', one of {tags}' if tags else ''}"
        case "value_error":
            return f"{field + ': ' if path else ''}{problem['ctx']['error']}".rstrip(".")
        case "too_short":
            return f"{field} is empty; give it at least one entry"
        case "tuple_type" | "list_type":
            return f"{field} is {_quoted(problem['input'])}: give a list"
        case "json_invalid":
            return f"it is not valid JSON ({problem['ctx']['error']})"
    return f"{field} is {_quoted(problem['input'])}: {_lowered(problem['msg'])}"


def _near(model: Any, field: str, sections: Sequence[type[BaseModel]]) -> list[str]:
    """Names in the same section that are spelt much like a field's, or the same name elsewhere."""
    *before, name = field.split(".")
    names = {each for section in sections for each in section.model_fields}
    near = [".".join([*before, each]) for each in near_matches(name, names)]
    elsewhere = (path for path in _paths(model) if path.rpartition(".")[2] == name)
    return [f"'{each}'" for each in near or list(elsewhere)[:1]]


def _walk(model: Any, place: Sequence[str | int]) -> tuple[str, list[type[BaseModel]]]:
    """Return a problem's path as a user would write it, and the sections that hold its last name.

    The tags that pydantic puts between (of unions, of keys) are left out.
    """
    path = ""
    kinds: list[Any] = [model]
    sections: list[type[BaseModel]] = []
    for part in place:
        members = [each for kind in kinds for each in kinds_of(kind)]
        sections = [each for each in members if _is_section(each)]
        inner: list[Any] = []
        for each in members:
            if _is_section(each):
                inner += [
                    f.annotation for n, f in each.model_fields.items() if part in (n, f.alias)
                ]
            elif typing.get_origin(each) in (dict, tuple, list) or _is_mapping(each):
                inner += [arg for arg in typing.get_args(each)[-2:] if arg is not Ellipsis][-1:]
        if isinstance(part, str) and _is_tag(part, members):
            kinds = [each for each in sections if _has_tag(each, part)] or kinds
        else:
            path += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
            kinds = inner
    return path.lstrip("."), sections


def _paths(kind: Any, before: str = "") -> Iterator[str]:
    """Return the paths of all fields, those in lists and under names of the user's left out."""
    for each in kinds_of(kind):
        if _is_section(each):
            for name, field in each.model_fields.items():
                yield before + name
                yield from _paths(field.annotation, f"{before}{name}.")


def kinds_of(kind: Any) -> Iterator[Any]:
    """Take annotations and unions apart."""
    if typing.get_origin(kind) is typing.Annotated:
        yield from kinds_of(typing.get_args(kind)[0])
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for each in typing.get_args(kind):
            yield from kinds_of(each)
    else:
        yield kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_mapping(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, typing.Mapping)


def _is_tag(part: str, members: Sequence[Any]) -> bool:
    """Whether a part of a place is what pydantic calls a member of a union."""
    return len(members) > 1 and any(
        _has_tag(each, part) or part.partition("[")[0] == getattr(each, "__name__", None)
        for each in members
    )


def _has_tag(kind: Any, tag: str | int) -> bool:
    if not _is_section(kind):
        return False
    fields = kind.model_fields.values()
    return any(tag in typing.get_args(field.annotation) for field in fields)


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
