"""Further training images, of whatever kind: no labels, but vectors of the same gallery space."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat.data import default_cache, open_data
from compat.data.cache import content_key, image_digests
from compat.errors import CompatError
from compat.gallery import GallerySpace, build_gallery, load_gallery_model
from compat.tasks.embedded import Embedded, embedded
from compat.tasks.study_data import StudyData
from compat.tasks.unlabelled import UnlabelledConfig

logger = logging.getLogger("querynas")

_SAME = ("model_digest", "preprocessing", "dimension", "metric")
"""What galleries of one space have in common."""


def embed_unlabelled(
    configs: Sequence[UnlabelledConfig], space: GallerySpace, folder: Path
) -> None:
    """Embed the images that have no gallery yet, with the views of the study's; resumed if killed.

    Args:
        configs: What is added; number i is embedded into ``folder``/i.
        space: The study's gallery.
        folder: Where the new galleries lie.

    Raises:
        CompatError: A model is not the one that made the study's gallery, or cannot be loaded.
    """
    for number, config in enumerate(configs):
        out = folder / str(number)
        if config.model is None or out.exists():
            continue
        model = load_gallery_model(config.model)
        if model.digest != space.manifest.model_digest:
            raise CompatError(
                f"The `model` '{config.model}' of `unlabelled` is not that of the gallery "
                f"'{space.path}', '{space.manifest.model or 'unknown'}': their weights differ; "
                "give that one, or a `gallery`."
            )
        build_gallery(
            open_data(config.data),
            model,
            out,
            views=space.view_recipe,
            dtype=space.manifest.dtype,
            fit=None if space.preprocessing is None else space.preprocessing.fit,
        )


def folder_of_unlabelled(configs: Sequence[UnlabelledConfig], space: GallerySpace) -> Path:
    """Return a folder in the cache for `embed_unlabelled`, where there is no other place.

    It is named after the images and the study's gallery, so other images have another.
    """
    cache = default_cache()
    own = [open_data(config.data) for config in configs if config.model is not None]
    names = [each for images in own for each in (*images.ids, *image_digests(images, cache))]
    settings = [config.model_dump() for config in configs]
    return cache / "unlabelled" / content_key(names, space.fingerprint, settings)


def open_unlabelled(
    configs: Sequence[UnlabelledConfig], study: StudyData, folder: Path
) -> tuple[Embedded, ...]:
    """Open what `embed_unlabelled` embedded, and galleries that were there.

    Images whose content is that of a validation or test query are left out; nothing else tells that
    an image is held out.

    Raises:
        CompatError: A gallery is missing, or is of another space than the study's.
    """
    if not configs:
        return ()
    splits, cache = study.splits, default_cache()
    asked = study.images.take(np.union1d(splits.val.queries, splits.test.queries))
    held_out = {*image_digests(asked, cache)} - {""}
    return tuple(
        _opened(config, study.gallery, folder / str(number), held_out, cache)
        for number, config in enumerate(configs)
    )


def _opened(
    config: UnlabelledConfig, space: GallerySpace, own: Path, held_out: set[str], cache: Path
) -> Embedded:
    if config.gallery is None and not own.exists():
        raise CompatError(
            f"'{own}' with the vectors of '{config.data}' is missing: repeat the command that "
            "began this folder, which embeds them again."
        )
    found = GallerySpace.open(config.gallery or own)
    _check_space(found, space, config)
    images = embedded(open_data(config.data), found)
    kept = [each not in held_out for each in image_digests(images, cache)]
    if not all(kept):
        logger.warning(
            "%d images of '%s' are left out, as they are validation or test queries.",
            kept.count(False),
            config.data,
        )
    if not any(kept):
        raise CompatError(
            f"All images of '{config.data}' are validation or test queries: leave them out of "
            "`unlabelled`."
        )
    return Embedded(images.take(np.flatnonzero(kept)), found)


def _check_space(found: GallerySpace, wanted: GallerySpace, config: UnlabelledConfig) -> None:
    if found.fingerprint == wanted.fingerprint:
        return
    for name in _SAME:
        one, other = getattr(found.manifest, name), getattr(wanted.manifest, name)
        if one != other:
            raise CompatError(
                f"'{found.path}' of `unlabelled` is not of the space of '{wanted.path}': "
                f"{name.replace('_', ' ')} {_short(one)}, not {_short(other)}; embed "
                f"'{config.data}' by the model of that gallery."
            )
    if found.manifest.derivation or wanted.manifest.derivation:
        raise CompatError(
            f"The gallery '{found.path}' of '{config.data}' or the study's '{wanted.path}' was "
            "derived from others, so that their vectors have no common space: add images to the "
            "galleries that they were derived from."
        )


def _short(value: Any) -> str:
    return str(value)[:24]
