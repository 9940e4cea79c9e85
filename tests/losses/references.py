"""What tests of losses compare with: formulas in plain Python, on lists of floats."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compat.losses import CompatibilityLoss, create_loss
from compat.targets import AlignmentTargets

DIMENSION, CLASSES, IMAGES = 8, 5, 40
ROWS = torch.tensor([0, 41, 79, 7, 23, 50])

Vector = list[float]


def unit(rows: int, seed: int, dimension: int = DIMENSION) -> Tensor:
    """Random unit vectors, float64 (rows, dimension)."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, dimension, generator=generator, dtype=torch.float64)
    return F.normalize(vectors, dim=1)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def length(a: Vector) -> float:
    return math.sqrt(dot(a, a))


def normal(a: Vector) -> Vector:
    return [x / length(a) for x in a]


def minus(a: Vector, b: Vector) -> Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / length(a) / length(b)


def log_softmax(logits: Vector) -> Vector:
    total = math.log(sum(math.exp(v) for v in logits))
    return [v - total for v in logits]


def softmax(logits: Vector) -> Vector:
    exponentials = [math.exp(v - max(logits)) for v in logits]
    return [e / sum(exponentials) for e in exponentials]


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def huber(x: float) -> float:
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def relu(x: Vector) -> Vector:
    return [max(0.0, v) for v in x]


def linear(layer: torch.nn.Linear, x: Vector) -> Vector:
    return [
        dot(row, x) + bias
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def cross_entropy(q: Vector, weights: list[Vector], y: int, s: float, m: float = 0.0) -> float:
    logits = []
    for c, weight in enumerate(weights):
        angle = math.acos(cosine(q, weight))
        if c != y:
            logits.append(s * math.cos(angle))
        elif angle < math.pi - m:
            logits.append(s * math.cos(angle + m))
        else:
            logits.append(s * (math.cos(angle) - m * math.sin(m)))
    return -log_softmax(logits)[y]


def away_from_start(loss: CompatibilityLoss) -> CompatibilityLoss:
    """The loss in float64, its parameters away from their start, where terms may be zero."""
    generator = torch.Generator().manual_seed(9)
    for parameter in loss.double().parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.3 * noise
    return loss


def make_targets(labels: Tensor | None = None) -> AlignmentTargets:
    """A gallery of forty images, and a view of each."""
    gallery = unit(IMAGES, 0).float()
    views = F.normalize(gallery + 0.2 * unit(IMAGES, 1).float(), dim=1)
    if labels is None:
        labels = torch.arange(IMAGES) * 7 % CLASSES
    return AlignmentTargets(torch.cat([gallery, views]), gallery, labels.repeat(2))


def prepared(name: str, targets: AlignmentTargets, **options: object) -> CompatibilityLoss:
    return create_loss({name: options}, targets).double()


def call(
    loss: CompatibilityLoss, targets: AlignmentTargets, query: Tensor, rows: Tensor = ROWS
) -> Tensor:
    return loss(query, targets.vectors[rows].double(), targets.batch(rows))
