"""Pictures together with their vectors in a gallery, as trainings take them."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compat.data import ImageSet, decode_views
from compat.data.preprocessing import Fit
from compat.data.views import partners
from compat.errors import CompatError
from compat.gallery import GallerySpace
from compat.tasks.retrieval import readable

logger = logging.getLogger("querynas")

_MISSING_SHARE = 0.01  # of the images, as for broken ones when a gallery is built


@dataclass(frozen=True, eq=False)
class Pictured:
    """Images that have equally many views.

    Attributes:
        images: N of them.
        pictures: The plain ones, then their views, each uint8 (N, r, r, 3), memory-mapped.
        vectors: Gallery vectors of each, float32 (N, d).
        mixed: How many of the views, the last ones, show a part of another image too.
    """

    images: ImageSet
    pictures: tuple[np.ndarray, ...]
    vectors: tuple[np.ndarray, ...]
    mixed: int = 0

    @property
    def alone(self) -> int:
        """How many of the pictures of an image show nothing else."""
        return len(self.pictures) - self.mixed

    def place(self, view: int, alone: int) -> int:
        """Return which picture stands for a view, where others have so many that are not mixed.

        Those with fewer views than others show them several times.
        """
        if view < alone:
            return view % self.alone
        return (
            self.alone + (view - alone) % self.mixed if self.mixed else (view - alone) % self.alone
        )


@dataclass(frozen=True, eq=False)
class Embedded:
    """Images that all have a vector in a gallery, some of them views too."""

    images: ImageSet
    gallery: GallerySpace

    def pictured(self, resolution: int, fit: Fit) -> Iterator[Pictured]:
        """Yield pictures at ``resolution`` pixels with their vectors: first those with views."""
        rows = self.gallery.rows(self.images.ids)
        viewed = np.isin(rows, self.gallery.view_rows)
        for chosen in (np.flatnonzero(viewed), np.flatnonzero(~viewed)):
            if len(chosen):
                yield self._pictured(self.images.take(chosen), rows[chosen], resolution, fit)

    def _pictured(self, images: ImageSet, rows: np.ndarray, resolution: int, fit: Fit) -> Pictured:
        space = self.gallery
        pictures = [readable(images, resolution, fit)]
        vectors = [np.asarray(space.vectors[rows], dtype=np.float32)]
        place = {row: i for i, row in enumerate(space.view_rows.tolist())}
        recipe = space.view_recipe
        if recipe is not None and space.view_vectors is not None and rows[0] in place:
            chosen = [place[row] for row in rows.tolist()]
            among = space.ids[space.view_rows]
            pictures += list(decode_views(images, recipe, resolution, fit=fit, among=among))
            vectors += [np.asarray(view[chosen], np.float32) for view in space.view_vectors]
            for view, others in enumerate(partners(images, recipe, among), 1 + recipe.alone):
                vectors[view] = np.where((others < 0)[:, None], vectors[0], vectors[view])
            return Pictured(images, tuple(pictures), tuple(vectors), recipe.mixed)
        return Pictured(images, tuple(pictures), tuple(vectors))


def embedded(images: ImageSet, space: GallerySpace) -> ImageSet:
    """Leave out the few images that the gallery lacks: those that were broken when it was built.

    Raises:
        CompatError: They are more than 1%.
    """
    known = np.isin(images.ids, space.ids)
    missing = images.ids[~known]
    if not len(missing):
        return images
    named = ", ".join(missing[:5].tolist())
    if len(missing) > _MISSING_SHARE * len(images):
        raise CompatError(
            f"The gallery '{space.path}' has no vectors for {len(missing)} of the {len(images)} "
            f"images of '{images.spec}' ({named}, …); give the data that the gallery was built "
            "from, or build it again."
        )
    logger.warning("%d images have no gallery vector and are left out: %s", len(missing), named)
    return images.take(np.flatnonzero(known))
