"""Options that several gallery commands share."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Option(
        help="Folder of images or of class folders, CSV/Parquet manifest, or a built-in name "
        "such as facades:classes=60,images=24."
    ),
]
Strict = Annotated[bool, typer.Option(help="Stop at the first broken image.")]
Jointly = Annotated[
    str | None,
    typer.Option(
        metavar="timm:NAME",
        help="Train a query model along, slower; without it stored vectors suffice.",
    ),
]
Pretrained = Annotated[bool, typer.Option(help="Start that query model from timm's weights.")]
Query = Annotated[
    Path | None, typer.Option(help="File to keep the trained query model in, .safetensors.")
]
