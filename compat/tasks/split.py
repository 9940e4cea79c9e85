"""How a data set is divided, as a study file says it."""

from pydantic import Field, model_validator

from compat.data.splits import By
from compat.errors import CompatError
from searchspaces.support.section import Section, Seed


class SplitConfig(Section):
    """Searches select on the part ``val``, tables report ``test``; shares of classes or images.

    ``by`` says which of them are drawn; None: classes where there are labels, else images.
    """

    val: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.25, gt=0, lt=1)
    seed: Seed = 0
    by: By | None = None

    @model_validator(mode="after")
    def _leaves_training_classes(self) -> "SplitConfig":
        if self.val + self.test >= 1:
            raise CompatError("val and test together leave nothing to train on; lower them")
        return self
