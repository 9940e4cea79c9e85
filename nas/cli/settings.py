"""From options to settings, in one sentence where they do not fit."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nas.config.yaml_text import parse_yaml
from nas.errors import StudyError

Settings = TypeVar("Settings", bound=BaseModel)


def settings(kind: type[Settings], fields: Mapping[str, Any]) -> Settings:
    """Return the settings of a command.

    Args:
        kind: What they are.
        fields: The options' values by the settings' fields, nested ones as dicts.

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
    try:
        loss = parse_yaml(text, "--loss")
    except StudyError:
        loss = None
    if not isinstance(loss, str | dict):
        raise StudyError(
            f"--loss is '{text}': give a name, or weights as in '{{ssp: 1, regression: 1}}'."
        )
    return loss
