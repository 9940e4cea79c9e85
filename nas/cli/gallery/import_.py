"""`querynas gallery import`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Metric(StrEnum):
    """Similarities that a gallery is searched by."""

    cosine = "cosine"
    ip = "ip"


def import_(
    vectors: Annotated[Path, typer.Option(help=".npy, .npz, .parquet or a faiss index.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    ids: Annotated[Path | None, typer.Option(help="Text file with one image id a line.")] = None,
    metric: Annotated[Metric, typer.Option(help="Similarity of the gallery.")] = Metric.cosine,
) -> None:
    """Take over vectors that exist already."""
    from compat.gallery import import_gallery
    from nas.cli.tables import print_gallery

    print_gallery(import_gallery(vectors, out, ids=ids, metric=metric.value))
