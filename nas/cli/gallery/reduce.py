"""`querynas gallery reduce`."""

from pathlib import Path
from typing import Annotated

import typer


def reduce(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder to start from.")],
    dimension: Annotated[
        int, typer.Option(min=1, max=65_536, help="Principal components to keep.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    whiten: Annotated[bool, typer.Option(help="Give every component the same variance.")] = False,
) -> None:
    """Derive a gallery of fewer dimensions (PCA); needs neither images nor the gallery model."""
    from compat.gallery import GallerySpace, reduce_gallery
    from nas.cli.tables import print_gallery

    source = GallerySpace.open(gallery)
    print_gallery(reduce_gallery(source, out, dimension=dimension, whiten=whiten))
