"""Options that several gallery commands share."""

from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Option(
        help="Folder per class, CSV/Parquet manifest, or a built-in name such as "
        "facades:classes=60,images=24."
    ),
]
Strict = Annotated[bool, typer.Option(help="Stop at the first broken image.")]
