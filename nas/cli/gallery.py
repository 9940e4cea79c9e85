"""`querynas gallery`: train, build, import and look at gallery spaces."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make the fixed gallery space, once.", no_args_is_help=True)


class Metric(StrEnum):
    """Similarities that a gallery is searched by."""

    cosine = "cosine"
    ip = "ip"


Data = Annotated[
    str,
    typer.Option(
        help="Folder per class, CSV/Parquet manifest, or a built-in name such as "
        "facades:classes=60,images=24."
    ),
]
Strict = Annotated[bool, typer.Option(help="Stop at the first broken image.")]


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    arch: Annotated[str, typer.Option(help="Network, e.g. timm:resnet18.")] = "timm:resnet18",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 16,
    size: Annotated[int, typer.Option(min=16, help="Side of the square input in pixels.")] = 64,
    dimension: Annotated[int, typer.Option(min=2, help="Dimension of the gallery space.")] = 256,
    flip: Annotated[bool, typer.Option(help="Whether a mirrored image is the same thing.")] = True,
    val: Annotated[float, typer.Option(help="Share of classes held out for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of classes held out for the test.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the training.")] = 0,
    strict: Strict = False,
) -> None:
    """Train a gallery network on the training classes; only where no trained one exists."""
    from compat.data import open_data, split
    from compat.gallery import TrainingRecipe, train_gallery_model

    images = open_data(data)
    recipe = TrainingRecipe(
        arch=arch, dimension=dimension, size=size, epochs=epochs, flip=flip, seed=seed
    )
    splits = split(images, val=val, test=test, seed=seed)
    train_gallery_model(images, splits, out, recipe, strict=strict)
    print(f"Gallery model: {out}")


@app.command()
def build(
    data: Data,
    model: Annotated[
        str,
        typer.Option(
            help="timm:NAME[,checkpoint=FILE], FILE.safetensors, FILE.onnx or module:factory."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    views: Annotated[
        int, typer.Option(min=0, help="Augmented views of each training image to embed as well.")
    ] = 4,
    flip: Annotated[bool, typer.Option(help="Whether views may be mirrored.")] = True,
    half: Annotated[bool, typer.Option(help="Store float16 instead of float32.")] = False,
    val: Annotated[float, typer.Option(help="Share of classes held out for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of classes held out for the test.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the views.")] = 0,
    strict: Strict = False,
) -> None:
    """Embed every image once; the gallery model never runs again after this step."""
    from compat.data import ViewRecipe, open_data, split
    from compat.gallery import build_gallery, load_gallery_model
    from nas.cli.tables import print_gallery

    sys.path.insert(0, str(Path.cwd()))  # so that module:factory finds the user's own module
    images = open_data(data)
    space = build_gallery(
        images,
        load_gallery_model(model),
        out,
        views=ViewRecipe(count=views, seed=seed, flip=flip) if views else None,
        train=split(images, val=val, test=test, seed=seed).train,
        dtype="float16" if half else "float32",
        strict=strict,
    )
    print_gallery(space)


@app.command("import")
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


@app.command()
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
