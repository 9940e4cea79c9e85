"""A user's own modules: found in the current folder by their file, which never joins the path."""

import hashlib
import importlib
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from os.path import isfile
from pathlib import Path
from types import CodeType, ModuleType

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def import_module(name: str) -> ModuleType:
    """Import a module that a user names: a file or package of the current folder, or installed.

    Nothing else in the current folder can be imported by it, unless it was named before: what a
    module needs beside itself belongs in one package, or is imported first.

    Args:
        name: Dotted name. Only name modules you trust: importing runs them.

    Raises:
        ImportError: There is no such module, or the name stands for two.
        Exception: Whatever the module raises.
    """
    place = _place(name)
    if place is not None:
        _FINDER.places[_top(name)] = place
    return importlib.import_module(name)


def module_digest(name: str) -> str:
    """Return SHA-256 (hex) of a module's name and, in the current folder, of all its source.

    Of an installed module that is the name alone. Nothing is imported.

    Raises:
        ImportError: There is no such module, or the name stands for two.
    """
    digest = hashlib.sha256(name.encode())
    place = _place(name)
    if place is not None:
        files = [*place.rglob("*.py"), *place.parent.glob(f"{place.name}.py")]
        for file in sorted(files):
            content = file.read_bytes()
            digest.update(f"\0{file.relative_to(place.parent)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _top(name: str) -> str:
    return name.partition(".")[0]


def _place(name: str) -> Path | None:
    """Return the current folder joined with the module's first name; None if it is installed."""
    if not _NAME.fullmatch(name):
        raise ImportError(f"'{name}' is no dotted name of a module")
    place = Path.cwd() / _top(name)
    own = next((file for file, _ in _files(place) if isfile(file)), None)
    installed = _installed(_top(name))
    if own is None and installed is None:
        raise ImportError(f"there is no '{place.name}.py' here, nor is it installed")
    if own is None:
        return None
    other = installed.origin if installed is not None else None  # folders of no file do not count
    if other is not None and own.resolve() != Path(other).resolve():
        raise ImportError(f"'{own.name}' is here, but '{other}' has that name too: rename it")
    return place


def _files(place: Path) -> tuple[tuple[Path, list[str] | None], ...]:
    """The files that may hold a module, with the folder of its submodules."""
    return (place / "__init__.py", [str(place)]), (place.with_name(f"{place.name}.py"), None)


def _installed(top: str) -> ModuleSpec | None:
    others = (finder for finder in sys.meta_path if finder is not _FINDER)
    specs = (finder.find_spec(top, None) for finder in others)
    return next((spec for spec in specs if spec is not None), None)


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time: bytecode that lies beside it may be of another source."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class _NamedFinder(MetaPathFinder):
    """Finds the modules of the current folder that were named, and what their packages hold."""

    def __init__(self) -> None:
        self.places: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        top, *rest = fullname.split(".")
        if top not in self.places:
            return None
        for file, folders in _files(self.places[top].joinpath(*rest)):
            if isfile(file):
                loader = _SourceLoader(fullname, str(file))
                return spec_from_file_location(
                    fullname, file, loader=loader, submodule_search_locations=folders
                )
        return None


_FINDER = _NamedFinder()
sys.meta_path.insert(0, _FINDER)
