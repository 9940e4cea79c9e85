"""Finds, checks, unpacks and, if asked, downloads a published archive."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compat.errors import CompatError


@dataclass(frozen=True)
class Archive:
    """A published file.

    Args:
        url: Where it can be had; its last part is the file's name.
        md5: Published checksum (hex).
        folder: The folder that it unpacks to.
    """

    url: str
    md5: str
    folder: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


def unpacked(archive: Archive, root: Path, *, download: bool) -> Path:
    """The archive's folder below `root`, unpacked and downloaded as needed.

    Raises:
        CompatError: Neither folder nor file is there and `download` is off, the download fails,
            or the file is not the published one.
    """
    folder, file = root / archive.folder, root / archive.file
    if folder.is_dir():
        return folder
    if not file.is_file():
        if not download:
            raise CompatError(
                f"There is neither {folder} nor {file}: put one there ({archive.url}) or pass "
                "download=true."
            )
        _download(archive, root)
    _check(archive, file)
    _unpack(archive, file, folder)
    return folder


def _download(archive: Archive, root: Path) -> None:
    from torchvision.datasets.utils import download_url

    try:
        download_url(archive.url, str(root), archive.file, archive.md5)
    except (OSError, RuntimeError) as error:
        raise CompatError(
            f"The download of {archive.url} failed ({error}): try again, or fetch it by hand and "
            f"put it into {root}."
        ) from error


def _check(archive: Archive, file: Path) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "md5").hexdigest()
    if found != archive.md5:
        raise CompatError(
            f"The file {file} has the MD5 checksum {found}, expected {archive.md5}: delete it and "
            f"fetch {archive.url} again."
        )


def _unpack(archive: Archive, file: Path, folder: Path) -> None:
    """Unpacks beside the place and moves the whole, so that no half of it is ever taken."""
    from torchvision.datasets.utils import extract_archive

    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".unpacking-") as temporary:
        extract_archive(str(file), temporary)
        inside = Path(temporary) / archive.folder
        if not inside.is_dir():
            raise CompatError(
                f"The file {file} does not hold the folder '{archive.folder}': fetch "
                f"{archive.url} again."
            )
        try:
            os.replace(inside, folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
            shutil.rmtree(inside)


def require_file(path: Path, remedy: str) -> Path:
    """The path itself; raises `CompatError` if there is no such file."""
    if not path.is_file():
        raise CompatError(f"There is no file {path}: {remedy}.")
    return path
