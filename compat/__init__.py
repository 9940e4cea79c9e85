"""What "lives in the gallery's space" means: data, gallery space, losses, evaluation."""

from compat.errors import CompatError

__all__ = ["CompatError"]
