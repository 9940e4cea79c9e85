"""What a training step costs beside the network's own forward and backward pass.

    python benchmarks/training.py --data D --gallery G

Three ways to a step of the same backbone, batch and resolution, in turns in one process, in
milliseconds of one core:

- `bare`: forward, backward and AdamW as PyTorch has them, of one batch that lies in memory.
- `ours`: an epoch of `compat.training`, from cached pictures and gallery vectors, with EMA.
- `usual`: PIL opens, crops and resizes pictures, the gallery network embeds them, and then comes
  the bare step towards its vectors.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

if TYPE_CHECKING:
    from compat.gallery import GalleryModel
    from compat.tasks import StudyData

BATCH, TURNS, STEPS = 64, 2, 4
NETWORKS = (
    ("tf_efficientnet_lite0", 32),
    ("tf_efficientnet_lite0", 64),
    ("tf_efficientnet_lite0", 96),
    ("mobilenetv2_100", 32),
    ("mobilenetv2_100", 64),
    ("mobilenetv3_small_100", 64),
)
Batches = Iterator[tuple[Tensor, Tensor]]


def stepping(model: Any, batches: Batches) -> Callable[[], None]:
    """A step as one writes it in PyTorch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.to(memory_format=torch.channels_last).train()

    def step() -> None:
        images, vectors = next(batches)
        loss = 1 - cosine_similarity(model(images), vectors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def in_memory(resolution: int, dimension: int) -> Batches:
    images = torch.rand(BATCH, 3, resolution, resolution)
    images = images.contiguous(memory_format=torch.channels_last)
    vectors = torch.randn(BATCH, dimension)
    while True:
        yield images, vectors


def opened(folder: str, data: "StudyData", resolution: int, gallery: "GalleryModel") -> Batches:
    """Random crops of pictures from the disk, and what the gallery network makes of them."""
    from PIL import Image
    from torchvision.transforms import RandomResizedCrop

    crop = RandomResizedCrop(gallery.preprocessing.resolution, scale=(0.5, 1.0))
    rng = np.random.default_rng(0)
    while True:
        names = data.images.ids[rng.choice(data.splits.train, BATCH)]
        crops = [crop(Image.open(f"{folder}/{name}").convert("RGB")) for name in names]
        small = [each.resize((resolution, resolution)) for each in crops]
        images = torch.from_numpy(np.stack([np.asarray(each) for each in small]))
        theirs = np.stack([np.asarray(each) for each in crops])
        vectors = torch.from_numpy(gallery.embed(theirs, batch=BATCH, description=None))
        yield images.permute(0, 3, 1, 2).float() / 255, vectors


def epoch(model: Any, data: "StudyData", resolution: int) -> float:
    """Seconds of a step of ours, scoring and what comes before the first step left out."""
    from compat.losses import create_loss
    from compat.targets import Batch
    from compat.training.alignment import align
    from compat.training.config import TrainingConfig

    training = data.training(resolution)
    loss = create_loss("regression", training.targets, centred=None, seed=0)
    marks = []

    def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
        marks.append(time.process_time())
        yield loss(model(images), batch.vectors, batch)

    config = TrainingConfig(epochs=1, batch=BATCH, lr=1e-4)
    align(
        model,
        losses,
        training,
        config,
        loss=loss,
        seed=0,
        device=torch.device("cpu"),
        title="ours",
        quiet=True,
    )
    return statistics.median(np.diff(marks))


def timed(step: Callable[[], None]) -> float:
    step()
    taken = []
    for _ in range(STEPS):
        begun = time.process_time()
        step()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="photographs in a folder per class")
    parser.add_argument("--gallery", required=True, help="gallery folder of those photographs")
    options = parser.parse_args()

    from compat.gallery.models import load_gallery_model
    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from searchspaces import timm_query_model

    torch.set_num_threads(1)
    data = load_study_data(options.data, options.gallery, SplitConfig())
    gallery = load_gallery_model(data.gallery.manifest.model)
    print("| network | px | bare, ms | ours, ms | of bare | usual, ms | of ours |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, side in NETWORKS:
        model = timm_query_model(name, data.gallery.dimension, resolution=side, pretrained=False)
        turns = [turn(model, side, data, options.data, gallery) for _ in range(TURNS)]
        bare, ours, usual = (1e3 * statistics.median(each) for each in zip(*turns, strict=True))
        print(
            f"| {name} | {side} | {bare:.0f} | {ours:.0f} | {ours / bare:.2f} | {usual:.0f} | "
            f"{usual / ours:.1f} |",
            flush=True,
        )


def turn(
    model: Any, side: int, data: "StudyData", folder: str, gallery: "GalleryModel"
) -> tuple[float, float, float]:
    """Seconds of a step by each of the three ways."""
    return (
        timed(stepping(model, in_memory(side, data.gallery.dimension))),
        epoch(model, data, side),
        timed(stepping(model, opened(folder, data, side, gallery))),
    )


if __name__ == "__main__":
    main()
