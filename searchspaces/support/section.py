"""What every section of our files is made of."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of fields that knows no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)
