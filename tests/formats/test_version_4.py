"""What querynas wrote before there were mixed views opens and is built to its end without them."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from compat.errors import CompatError
from compat.gallery import GallerySpace
from compat.gallery.manifest import Manifest
from searchspaces.support.reading import read_json

Done = Callable[[str], str]

BUILD = (
    "gallery build --data facades:classes=12,images=6,size=24,seed=0 --model model.safetensors "
    "--views 1 --out"
)


class _OldManifest(Manifest):
    NEWEST: ClassVar = 2


def test_a_begun_gallery_is_built_to_its_end_without_mixed_views(done: Done) -> None:
    old = GallerySpace.open("gallery")
    assert (old.manifest.version, old.manifest.view_recipe.mixed) == (2, 0)
    done(f"{BUILD} begun/gallery")
    new = GallerySpace.open("begun/gallery")
    assert (new.manifest.version, new.manifest.view_recipe) == (3, old.manifest.view_recipe)
    assert new.fingerprint == old.fingerprint
    np.testing.assert_allclose(new.view_vectors, old.view_vectors, atol=1e-4)


def test_a_new_gallery_has_mixed_views_and_older_readers_refuse_it(done: Done) -> None:
    done(f"{BUILD} again")
    old, new = GallerySpace.open("gallery"), GallerySpace.open("again")
    assert new.manifest.view_recipe.mixed == 2
    assert new.view_vectors.shape[0] == old.view_vectors.shape[0] + 2
    np.testing.assert_allclose(new.view_vectors[:1], old.view_vectors, atol=1e-4)
    with pytest.raises(CompatError, match=r"up to 2: update querynas\.$"):
        read_json(Path("again/gallery.json"), _OldManifest, error=CompatError, remedy="build it")
