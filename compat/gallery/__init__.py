"""The gallery space and the models and files it is made from."""

from compat.gallery.build import build_gallery, mixed_views
from compat.gallery.codes import Codes, ProductCoder, ProductCodes, SignCoder, SignCodes
from compat.gallery.compressing import compress_gallery
from compat.gallery.deriving import derive_gallery
from compat.gallery.enhancing import enhance
from compat.gallery.fusing import fuse_galleries
from compat.gallery.hashing import hash_gallery
from compat.gallery.importing import import_gallery
from compat.gallery.indexing import gallery_index, search_gallery
from compat.gallery.models import (
    GalleryModel,
    load_gallery_model,
    made_by_factory,
    save_gallery_model,
    torch_gallery_model,
)
from compat.gallery.reducing import reduce_gallery
from compat.gallery.space import GallerySpace
from compat.gallery.training import TrainingRecipe, train_gallery_model

__all__ = [
    "Codes",
    "GalleryModel",
    "GallerySpace",
    "ProductCoder",
    "ProductCodes",
    "SignCoder",
    "SignCodes",
    "TrainingRecipe",
    "build_gallery",
    "compress_gallery",
    "derive_gallery",
    "enhance",
    "fuse_galleries",
    "gallery_index",
    "hash_gallery",
    "import_gallery",
    "load_gallery_model",
    "made_by_factory",
    "mixed_views",
    "reduce_gallery",
    "save_gallery_model",
    "search_gallery",
    "torch_gallery_model",
    "train_gallery_model",
]
