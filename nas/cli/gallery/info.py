"""`querynas gallery info`."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder.")],
    verify: Annotated[bool, typer.Option(help="Read and check every vector.")] = False,
) -> None:
    """Say what a gallery space holds."""
    from compat.gallery import GallerySpace
    from nas.cli.tables import print_gallery

    space = GallerySpace.open(gallery)
    if verify:
        space.verify()
    print_gallery(space)
    if verify:
        print("Verified: every vector is finite and non-zero, and the fingerprint matches.")
