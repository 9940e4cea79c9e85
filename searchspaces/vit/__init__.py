"""An elastic space of small vision transformers and its weight-sharing supernet."""

from searchspaces.vit.space import ViTSpace
from searchspaces.vit.supernet import ViTSupernet

__all__ = ["ViTSpace", "ViTSupernet"]
