"""Gallery vectors from several looks at an image, made offline and once."""

from compat.gallery.enhancing.wrapping import ONLY_GLOBAL, STEPS, enhance, passes

__all__ = ["ONLY_GLOBAL", "STEPS", "enhance", "passes"]
