"""How query models are aligned, as studies, prunings and nests say it alike."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from compat.tasks.unlabelled import UnlabelledConfig
from compat.training.config import TrainingConfig, at_rate
from searchspaces.support.section import Section

_BEFORE: Mapping[str, Any] = {
    "loss": "regression",
    "projection": "random",
    "centred": False,
    "statistics": "trained",
}
"""What older files do not say, and how it was then."""


PRETRAINED_LOSS: Mapping[str, Any] = {
    "csd": {"gallery_temperature": "spread", "query_temperature": "spread"}
}
"""Of networks that start from pretrained weights, where none is given."""

_PRETRAINED_BEFORE: Mapping[str, Any] = {
    "csd": {"gallery_temperature": 0.07, "query_temperature": 0.07}
}
"""The same before work that begins wrote down the loss that it takes."""


Config = TypeVar("Config", bound="AlignmentConfig")


class AlignmentConfig(Section):
    """What alignments towards one gallery have in common.

    Attributes:
        loss: Towards the gallery vectors: a name, or weights and options by name; None for what
            suits the network's weights, see `with_loss`.
        projection: "fitted": in closed form, before any training and after every cut. "random": as
            a network comes, and without a bias.
        centred: Whether losses see vectors from the mean of the gallery's; None for those losses
            that gain by it. Scores never do.
        statistics: Of BatchNorm in pretrained networks: "kept", or "trained" as in all others.
            Statistics of a few images of one kind take from a network what it knew of others.
        unlabelled: Further training images, none of which has a label.
    """

    loss: str | dict[str, Any] | None = None
    projection: Literal["fitted", "random"] = "fitted"
    centred: bool | None = None
    statistics: Literal["kept", "trained"] = "kept"
    unlabelled: tuple[UnlabelledConfig, ...] = Field((), max_length=100)

    @property
    @abstractmethod
    def starts_trained(self) -> bool:
        """Whether all networks come with weights of before."""

    @property
    def alignment_loss(self) -> str | dict[str, Any]:
        """The loss of work that was begun, see `with_loss`."""
        if self.loss is not None:
            return self.loss
        return dict(_PRETRAINED_BEFORE) if self.starts_trained else "csd"

    def with_loss(self: Config) -> Config:
        """Return the config of work that begins: it says its loss, whatever is the default later.

        Where none is given that is `PRETRAINED_LOSS`, or of random weights ``csd``.
        """
        if self.loss is not None:
            return self
        loss = dict(PRETRAINED_LOSS) if self.starts_trained else "csd"
        return self.model_copy(update={"loss": loss})


def with_what_was(settings: Any) -> Any:
    """Add to settings as an older file has them what it does not say."""
    return {**_BEFORE, **settings} if isinstance(settings, dict) else settings


def as_begun(config: Config, begun: Mapping[str, Any]) -> Config:
    """Return a config that leaves to work which was begun how it goes on, rates included.

    Args:
        config: Whose own words count where it has any; null is none.
        begun: The settings that the work was begun with; older ones lack some.
    """
    then = {name: begun.get(name, old) for name, old in _BEFORE.items()}
    said = {name for name in config.model_fields_set if getattr(config, name) is not None}
    unsaid = {name: old for name, old in then.items() if name not in said}
    config = config.model_copy(update=unsaid)
    known = {name: value for name, value in begun.items() if name in type(config).model_fields}
    try:
        return _at_rates(config, type(config).model_validate(known))
    except ValidationError:  # whoever compares the settings says which of them is wrong
        return config


Part = TypeVar("Part", bound=Section)


def _at_rates(section: Part, begun: Section) -> Part:
    """Return a section whose trainings go on at the rates that they began with."""
    changed: dict[str, Any] = {}
    for name in type(section).model_fields:
        value, before = getattr(section, name), getattr(begun, name, None)
        if isinstance(value, TrainingConfig) and isinstance(before, TrainingConfig):
            changed[name] = at_rate(value, before.lr)
        elif isinstance(value, dict) and isinstance(before, dict):
            changed[name] = {
                key: _at_rates(each, before[key])
                if isinstance(each, Section) and isinstance(before.get(key), Section)
                else each
                for key, each in value.items()
            }
    return section.model_copy(update=changed)
