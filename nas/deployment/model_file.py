"""Exported files at work: opened with their card, ready to embed images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from compat.images import as_images, to_float
from nas.deployment.card import Card, read_card
from nas.deployment.formats import REMEDY, Run, opener_of
from nas.errors import StudyError
from searchspaces.support.errors import reason

Embed = Callable[[np.ndarray], np.ndarray]

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Deployed:
    """An exported query model, ready to use.

    Attributes:
        embed: Maps uint8 images (N, r, r, 3) to float32 unit vectors (N, d).
        card: What it is.
    """

    embed: Embed
    card: Card


def load_deployed(path: str | Path) -> Deployed:
    """Open an exported .onnx or .safetensors file together with its card, on the CPU.

    Raises:
        StudyError: The file is of a format that is not opened, the file or its card is missing or
            damaged, or they do not belong together.
        PruningError: The safetensors file is damaged.
    """
    path = Path(path)
    open_file = opener_of(path)
    card = read_card(path)
    side = card.input.resolution
    return Deployed(embedder(open_file(path, side), path, side, card.dimension), card)


def embedder(run: Run, path: Path, resolution: int, dimension: int) -> Embed:
    """Return a function from uint8 images (N, r, r, 3) to float32 vectors (N, d).

    Args:
        run: An open model file.
        path: Where it lies, for messages.
        resolution: Side r of its square input in pixels.
        dimension: Width d of its embeddings.
    """

    def embed(pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (resolution, resolution, 3):
            raise StudyError(
                f"'{path.name}' takes uint8 images (N, {resolution}, {resolution}, 3), not "
                f"{pixels.dtype} {pixels.shape}; decode them at its resolution."
            )
        vectors = []
        with tqdm(total=len(pixels), desc="embedding images", unit="images", delay=2) as bar:
            for start in range(0, len(pixels), _BATCH):
                vectors.append(_embedded(pixels[start : start + _BATCH]))
                bar.update(len(vectors[-1]))
        return np.concatenate(vectors)

    def _embedded(pixels: np.ndarray) -> np.ndarray:
        images = to_float(as_images(pixels)).contiguous().numpy()
        try:
            found = run(images)
        except Exception as error:  # every runtime has error types of its own
            raise StudyError(
                f"'{path}' cannot embed images of {resolution} pixels ({reason(error)}); {REMEDY}."
            ) from error
        if found.shape != (len(pixels), dimension) or not np.isfinite(found).all():
            raise StudyError(
                f"'{path}' gives {found.dtype} {found.shape} for {len(pixels)} images, expected "
                f"finite vectors of {dimension} dimensions; {REMEDY}."
            )
        return found

    return embed
