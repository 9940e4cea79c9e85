"""`querynas gallery build`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.gallery.options import Data, Strict
from nas.cli.options import By, Seed, Test, Val


def build(
    data: Data,
    model: Annotated[
        str,
        typer.Option(
            help="timm:NAME[,checkpoint=FILE], FILE.safetensors, FILE.onnx or module:factory."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    enhance: Annotated[
        str,
        typer.Option(
            help="Several looks at each image: some of multiscale, regions, keypoints and "
            "adaptive, with commas between them; onlyglobal for all."
        ),
    ] = "",
    views: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Augmented views of each training image to embed as well."
        ),
    ] = 4,
    mixed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100,
            help="Further views that show a part of another training image too; 2 by default.",
        ),
    ] = None,
    flip: Annotated[bool, typer.Option(help="Whether views may be mirrored.")] = True,
    half: Annotated[bool, typer.Option(help="Store float16 instead of float32.")] = False,
    val: Val = 0.15,
    test: Test = 0.25,
    by: By = None,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """Embed every image once; the gallery model never runs again after this step."""
    from compat.data import ViewRecipe, open_data, split
    from compat.data.splits import drawn_by
    from compat.gallery import build_gallery, enhancing, load_gallery_model, mixed_views
    from nas.cli.tables import print_gallery

    images = open_data(data)
    steps = [step.strip() for step in enhance.split(",") if step.strip()]
    if steps:
        print(f"Passes of the gallery model per image: {enhancing.passes(steps)}")
    part = drawn_by(images, by)
    train = split(images, val=val, test=test, seed=seed, by=part).train
    print(f"Split by {part}: {len(train):,} of {len(images):,} images are for training.")
    mixed = mixed_views(out) if mixed is None else mixed
    drawn = ViewRecipe(count=max(1, views + mixed), mixed=mixed, seed=seed, flip=flip)
    space = build_gallery(
        images,
        enhancing.enhance(load_gallery_model(model), steps),
        out,
        views=drawn if views + mixed else None,
        train=train,
        dtype="float16" if half else "float32",
        strict=strict,
    )
    print_gallery(space)
