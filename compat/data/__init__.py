"""Images in: sets of every layout, their splits, and decoded pixels and views on disk."""

from compat.data.cache import Decoded, decode
from compat.data.facades import open_facades
from compat.data.folder import open_folder
from compat.data.images import ImageSet, ImageSource, RelevanceLists
from compat.data.manifest import open_manifest
from compat.data.opening import BrokenImageError, open_rgb
from compat.data.preprocessing import Preprocessing, fit_image
from compat.data.revisitop import open_revisitop
from compat.data.sources import open_data
from compat.data.splits import Retrieval, Splits, split
from compat.data.views import ViewRecipe, decode_views
from searchspaces.support.cache import default_cache

__all__ = [
    "BrokenImageError",
    "Decoded",
    "ImageSet",
    "ImageSource",
    "Preprocessing",
    "RelevanceLists",
    "Retrieval",
    "Splits",
    "ViewRecipe",
    "decode",
    "decode_views",
    "default_cache",
    "fit_image",
    "open_data",
    "open_facades",
    "open_folder",
    "open_manifest",
    "open_revisitop",
    "open_rgb",
    "split",
]
