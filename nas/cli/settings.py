"""From options to settings, in one sentence where they do not fit."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nas.config.yaml_text import parse_yaml
from nas.errors import StudyError

Settings = TypeVar("Settings", bound=BaseModel)


def settings(kind: type[Settings], fields: Mapping[str, Any] | str) -> Settings:
    """Return the settings of a command.

    Args:
        kind: What they are.
        fields: The options' values by the settings' fields, nested ones as dicts; or what is short
            for them.

    Raises:
        StudyError: A value is out of range; the sentence names its option.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "value_error":
            raise StudyError(str(problem["ctx"]["error"])) from error
        option = str(problem["loc"][-1]).replace("_", "-")
        raise StudyError(f"--{option} is {problem['input']!r}: {problem['msg']}.") from error


def loss_of(text: str) -> str | dict[str, Any]:
    """Read the option --loss: a name, or weights as in "{ssp: 1, regression: 1}".

    Raises:
        StudyError: It is neither.
    """
    return _name_or_mapping(text, "--loss", "weights as in '{ssp: 1, regression: 1}'")


def unlabelled_of(texts: Sequence[str]) -> list[str | dict[str, Any]]:
    """Read the options --unlabelled: specs, or "{data: photos, gallery: galleries/photos}".

    Raises:
        StudyError: One is neither.
    """
    example = "'{data: photos, gallery: galleries/photos}'"
    return [_name_or_mapping(text, "--unlabelled", example) for text in texts]


def _name_or_mapping(text: str, option: str, example: str) -> str | dict[str, Any]:
    try:
        found = parse_yaml(text, option)
    except StudyError:
        found = None
    if not isinstance(found, str | dict):
        raise StudyError(f"{option} is '{text}': give a name, or {example}.")
    return found
