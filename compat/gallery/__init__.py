"""The gallery space and the models and files it is made from."""

from compat.gallery.build import build_gallery
from compat.gallery.importing import import_gallery
from compat.gallery.models import (
    GalleryModel,
    load_gallery_model,
    save_gallery_model,
    torch_gallery_model,
)
from compat.gallery.space import GallerySpace
from compat.gallery.training import TrainingRecipe, train_gallery_model

__all__ = [
    "GalleryModel",
    "GallerySpace",
    "TrainingRecipe",
    "build_gallery",
    "import_gallery",
    "load_gallery_model",
    "save_gallery_model",
    "torch_gallery_model",
    "train_gallery_model",
]
