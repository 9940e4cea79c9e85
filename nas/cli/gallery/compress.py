"""`querynas gallery compress`."""

from pathlib import Path
from typing import Annotated

import typer


def compress(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder to start from.")],
    bytes_: Annotated[
        int, typer.Option("--bytes", min=1, max=65_536, help="Size of one vector's code.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    bits: Annotated[
        int, typer.Option(min=1, max=8, help="Bits per part of a vector: 2^bits centroids each.")
    ] = 8,
    opq: Annotated[
        bool, typer.Option(help="Learn a rotation first: smaller errors, minutes of training.")
    ] = False,
) -> None:
    """Derive a gallery stored as product-quantisation codes; needs no images and no model."""
    from compat.gallery import GallerySpace, compress_gallery
    from nas.cli.tables import print_gallery

    source = GallerySpace.open(gallery)
    print_gallery(compress_gallery(source, out, bytes_per_vector=bytes_, bits=bits, opq=opq))
