"""What "lives in the gallery's space" means: data, gallery space, losses, evaluation."""

import searchspaces.support.process  # noqa: F401  before torch is loaded
from compat.errors import CompatError

__all__ = ["CompatError"]
