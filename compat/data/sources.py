"""From a text, such as one in a study file, to a set of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from compat.data.facades import open_facades
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
from searchspaces.support.cache import default_cache
from searchspaces.support.naming import did_you_mean

_PUBLISHED: Mapping[str, Callable[..., ImageSet]] = {
    "omniglot": open_omniglot,
    "cifar10": open_cifar10,
    "sop": open_sop,
    "cub200": open_cub200,
    "inshop": open_inshop,
}
BUILT_IN = ("facades", *_PUBLISHED, "revisitop")
_TABLES = (".csv", ".parquet")


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
    if name == "facades":
        counts = _options(name, text, ("classes", "images", "size", "seed"))
        return open_facades(**{key: _whole(name, key, value) for key, value in counts.items()})
    if name == "revisitop":
        places = _options(name, text, ("gnd", "images"))
        for key in ("gnd", "images"):
            if key not in places:
                raise CompatError(
                    f"The set revisitop needs {key}=..., found '{text}': write "
                    "revisitop:gnd=FILE.pkl,images=DIR."
                )
        return open_revisitop(_resolved(places["gnd"], root), _resolved(places["images"], root))
    chosen = _options(name, text, ("root", "download"))
    if "root" in chosen:
        place = _resolved(chosen["root"], root)
    else:
        place = (root or default_cache() / "data").resolve()
    return _PUBLISHED[name](place, download=_truth(name, chosen.get("download", "false")))


def _options(name: str, text: str, known: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if key not in known:
            raise CompatError(
                f"The set {name} has no option '{key}', expected {list(known)}"
                f"{did_you_mean(key, known)}."
            )
        if not equals or not value or key in options:
            raise CompatError(f"The set {name} expects {key}=VALUE once, found '{text}'.")
        options[key] = value
    return options


def _whole(name: str, key: str, value: str) -> int:
    if not value.isdecimal():
        raise CompatError(f"The set {name} has {key}={value}, expected a whole number.")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise CompatError(f"The set {name} has download={value}, expected true or false.")
    return value.lower() == "true"


def _resolved(path: str, root: Path | None) -> Path:
    return (Path(root or ".") / Path(path).expanduser()).resolve()
