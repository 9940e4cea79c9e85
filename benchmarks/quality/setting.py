"""What all parts share: sizes, the search space, the architectures, where results lie."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compat.gallery import GallerySpace
from compat.training.config import TrainingConfig
from searchspaces import Architecture, ElasticSpace, create_space
from searchspaces.support.files import write_atomically

OPTIONS: dict[str, Any] = {
    "resolutions": [20, 24, 32],
    "stem_widths": [8, 16],
    "stem_strides": [2],
    "stages": [
        {"widths": [8, 16], "depths": [1], "expansions": [1, 2], "kernels": [3], "strides": [1, 2],
         "activation": "relu"},
        {"widths": [16, 24], "depths": [1, 2], "expansions": [2, 3], "kernels": [3],
         "strides": [2]},
        {"widths": [24, 32, 40], "depths": [1, 2, 3], "expansions": [2, 3], "kernels": [3, 5],
         "strides": [1, 2]},
        {"widths": [40, 48, 64], "depths": [1, 2], "expansions": [2, 3], "kernels": [3, 5],
         "strides": [1, 2]},
    ],
    "head_widths": [96, 128, 192],
}  # fmt: skip
SPACE = "bench"  # the space's name in study files
GRID = [
    ("lcnet_035", 32),
    ("mobilenetv3_small_050", 32),
    ("test_byobnet", 32),
    ("mobilenetv2_035", 32),
    ("mobilenetv3_small_075", 32),
    ("mobilenetv3_small_050", 64),
    ("lcnet_035", 64),
    ("test_resnet", 32),
    ("lcnet_050", 64),
    ("mobilenetv3_small_075", 64),
    ("test_byobnet", 64),
    ("mobilenetv2_035", 64),
]  # timm name and side of the input in pixels, by MACs
SEEDS = (0, 1, 2)
ORDERS = 200  # in which random search could have trained the truth
SUPERNET_RATE = 0.01  # of 0.003 to 0.012, tried on other seeds: docs/results.md
SHORT = 1  # epochs of a short alignment
PAIRED = 8  # architectures of which training and scoring are timed side by side
TIMED = 5  # scores that are timed before such a training, and after it
FIRST = 60  # candidates by which the compute of one is known


@dataclass(frozen=True)
class Setting:
    """What all parts share; the defaults of the command line are sized for two CPU cores.

    Attributes:
        count: Architectures of the truth.
        epochs: Of every full alignment.
        supernet_epochs: Of a supernet's training.
        candidates: That our search scores on shared weights.
        short: Of these, how many it aligns for `SHORT` epoch.
        full: Of these, how many it aligns for `epochs`.
        budget: Seconds of compute that every search may spend.
    """

    data: str
    gallery: str
    out: str
    count: int
    epochs: int
    supernet_epochs: int
    candidates: int
    short: int
    full: int
    budget: float

    def file(self, name: str) -> Path:
        return Path(self.out) / f"{name}.json"

    @property
    def dimension(self) -> int:
        return GallerySpace.open(self.gallery).dimension

    def read(self, name: str) -> Any:
        return json.loads(self.file(name).read_text())


def training(epochs: int) -> TrainingConfig:
    return TrainingConfig(epochs=epochs, validate_every=max(1, epochs // 4))


def space() -> ElasticSpace:
    made = create_space("mbconv", **OPTIONS)
    assert isinstance(made, ElasticSpace)
    return made


def architectures(count: int, dimension: int) -> list[Architecture]:
    """The truth's architectures: half uniform draws, half spread evenly over log-MACs."""
    made, rng = space(), random.Random(0)
    uniform = list(dict.fromkeys(made.sample(rng) for _ in range(count)))[: count // 2]
    pool = {a: made.macs(a, dimension) for a in (made.sample(rng) for _ in range(4000))}
    pool |= {a: made.macs(a, dimension) for a in (made.smallest(), made.largest())}
    spread: list[Architecture] = []
    for goal in np.geomspace(min(pool.values()), max(pool.values()), count - len(uniform)):
        left = [a for a in pool if a not in spread and a not in uniform]
        spread.append(min(left, key=lambda a: abs(np.log(pool[a] / goal))))
    return uniform + spread


def paired(count: int) -> list[int]:
    """Which of the truth's architectures are timed in two ways."""
    return list(range(0, count, max(1, count // PAIRED)))


def keep(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=1)
    write_atomically(file, lambda path: path.write_text(text))
