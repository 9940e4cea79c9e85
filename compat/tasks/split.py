"""How a data set is divided, as a study file says it."""

from pydantic import Field, model_validator

from compat.errors import CompatError
from searchspaces.support.section import Section, Seed


class SplitConfig(Section):
    """Class-disjoint parts; searches select on ``val``, tables report ``test``."""

    val: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.25, gt=0, lt=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _leaves_training_classes(self) -> "SplitConfig":
        if self.val + self.test >= 1:
            raise CompatError("val and test together leave no classes to train on; lower them")
        return self
