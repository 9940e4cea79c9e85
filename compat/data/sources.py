"""From a text, such as one in a study file, to a set of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from compat.data.facades.source import Facades, render
from compat.data.folder import open_folder
from compat.data.images import ImageSet
from compat.data.manifest import open_manifest
from compat.data.published.cifar10 import open_cifar10
from compat.data.published.cub200 import open_cub200
from compat.data.published.inshop import open_inshop
from compat.data.published.omniglot import open_omniglot
from compat.data.published.sop import open_sop
from compat.data.revisitop import open_revisitop
from compat.errors import CompatError
from compat.section import Options
from searchspaces.support.cache import default_cache
from searchspaces.support.errors import reason
from searchspaces.support.naming import did_you_mean
from searchspaces.support.reading import validated
from searchspaces.support.section import Section

_PUBLISHED: Mapping[str, Callable[..., ImageSet]] = {
    "omniglot": open_omniglot,
    "cifar10": open_cifar10,
    "sop": open_sop,
    "cub200": open_cub200,
    "inshop": open_inshop,
}
BUILT_IN = ("facades", *_PUBLISHED, "revisitop")
_TABLES = (".csv", ".parquet")


class Revisitop(Options):
    """What "revisitop:..." has to say."""

    SUBJECT: ClassVar = "The set revisitop (revisitop:gnd=FILE.pkl,images=DIR)"

    gnd: str
    images: str


class Published(Section):
    """What the text of a published set may say."""

    root: str | None = None
    download: bool = False


def open_data(spec: str | Path, *, root: Path | None = None) -> ImageSet:
    """Opens the images that a text names.

    Args:
        spec: One of

            - "PATH": a folder with one folder of images per class, or a .csv or .parquet manifest
            - "PATH,queries=DIR": two such folders, of gallery images and queries
            - "facades:classes=80,images=20,size=64,seed=0": rendered, synthetic (all optional)
            - "omniglot", "cifar10", "sop", "cub200", "inshop", each with ":root=DIR" and
              "download=true" if wanted
            - "revisitop:gnd=FILE.pkl,images=DIR"

            A folder that is called like a built-in set is opened as "./NAME" or as a `Path`.
        root: Where relative paths start, the working folder if None; also where published sets
            lie when the text has no "root=" (if None, the folder "data" of the cache).

    Raises:
        CompatError: A name or an option is unknown, or what it names cannot be read.
    """
    try:
        return _open(spec, root)
    except OSError as error:
        raise CompatError(
            f"The data '{spec}' cannot be read ({error.filename}: {reason(error)}): see to its "
            "files."
        ) from error


def _open(spec: str | Path, root: Path | None) -> ImageSet:
    text = str(spec)
    name, _, options = text.partition(":")
    if isinstance(spec, str) and name in BUILT_IN:
        return _built_in(name, options, root)
    path, _, queries = text.partition(",queries=")
    place = _resolved(path, root)
    if queries:
        return open_folder(place, queries=_resolved(queries, root))
    if place.suffix.lower() in _TABLES and not place.is_dir():
        return open_manifest(place)
    if not place.exists():
        near = did_you_mean(name, BUILT_IN)
        if not near and place.parent.is_dir():
            near = did_you_mean(place.name, os.listdir(place.parent))
        raise CompatError(
            f"There is no data at {place}{near}: give a folder, a manifest, or one of "
            f"{', '.join(BUILT_IN)}."
        )
    if place.is_file():
        raise CompatError(
            f"The file {place} is no manifest, expected one that ends in {' or '.join(_TABLES)}."
        )
    return open_folder(place)


def _built_in(name: str, text: str, root: Path | None) -> ImageSet:
    given = _options(name, text)
    if name == "facades":
        return render(Facades(**given))
    if name == "revisitop":
        files = Revisitop(**given)
        return open_revisitop(_resolved(files.gnd, root), _resolved(files.images, root))
    chosen = validated(Published, given, f"The set {name}", error=CompatError)
    if chosen.root is not None:
        place = _resolved(chosen.root, root)
    else:
        place = (root or default_cache() / "data").resolve()
    return _PUBLISHED[name](place, download=chosen.download)


def _options(name: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if not value or key in options:
            raise CompatError(f"The set {name} expects {key}=VALUE once, found '{text}'.")
        options[key] = value
    return options


def _resolved(path: str, root: Path | None) -> Path:
    try:
        place = (Path(root or ".") / Path(path).expanduser()).resolve()
        place.exists()  # raises for a name that no file can have
    except (OSError, ValueError, RuntimeError) as error:
        raise CompatError(
            f"There is no data at '{path}' ({reason(error)}): give a folder or a manifest."
        ) from error
    return place
