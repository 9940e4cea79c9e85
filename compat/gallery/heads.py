"""Small networks on the gallery side, trained on stored vectors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compat.training import Course, Descent, fit


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained on stored vectors: AdamW with a cosine schedule, on the CPU.

    Attributes:
        steps: Number of steps; more fit the training classes closer and serve others less.
        batch: Vectors per step.
        lr: At the start.
        weight_decay: Of AdamW.
        seed: Of weights and order.
    """

    steps: int = 200
    batch: int = 128
    lr: float = 1e-2
    weight_decay: float = 0.05
    seed: int = 0


class DynamicMixer(nn.Module):
    """Several features (B, d_i) of the same images to one embedding (B, d) of length one.

    Every feature is projected to d dimensions, t_i = P_i·x_i. Attention weights are computed from
    the image's own features, a = softmax_i(u·t_i), and the embedding is Σ_i (1/n + a_i)·t_i: the
    plain mean as a residual, plus the weighted one. The role is that of the mixer of Wu et al.,
    "Asymmetric feature fusion for image retrieval", CVPR 2023; this form, without blocks of
    self-attention and without local features, is chosen here because one vector per model is
    stored. The projections start orthogonal, so that similarities are kept as well as they can be,
    and u starts at zero: all features count alike.

    Args:
        widths: d_i.
        dimension: d.
    """

    def __init__(self, widths: Sequence[int], dimension: int) -> None:
        super().__init__()
        projections = [nn.Linear(width, dimension, bias=False) for width in widths]
        for projection in projections:
            nn.init.orthogonal_(projection.weight)
        self.projections = nn.ModuleList(projections)
        self.attention = nn.Linear(dimension, 1, bias=False)
        nn.init.zeros_(self.attention.weight)

    def forward(self, *features: Tensor) -> Tensor:
        """Mix one (B, d_i) tensor per feature."""
        projected = torch.stack(
            [project(x) for project, x in zip(self.projections, features, strict=True)], dim=1
        )
        weights = self.attention(projected).softmax(dim=1) + 1 / len(features)
        return functional.normalize((weights * projected).sum(dim=1), dim=1)


class HashHead(nn.Module):
    """A feature (B, d) to one (B, k) of length one whose signs are its code: Linear, BatchNorm.

    BatchNorm centres every bit, so that its signs are about balanced over the training images.
    """

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, bits, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.norm = nn.BatchNorm1d(bits)

    def forward(self, features: Tensor) -> Tensor:
        """Embed (B, d) features."""
        return functional.normalize(self.norm(self.project(features)), dim=1)


def train_head(
    head: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    training: HeadTraining,
    *,
    title: str,
) -> None:
    """Train ``head`` in place and leave it in evaluation mode.

    Args:
        head: All that is trained, the class weights included.
        loss: Scalar loss of the vectors in the given rows, int64 (B,).
        count: Number of rows.
        training: How.
        title: Words for the progress bar.

    Raises:
        CompatError: When the loss stops being finite.
    """
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)

    def batches(_: int) -> Iterator[Tensor]:
        rng = np.random.default_rng(training.seed)
        for _ in range(training.steps):
            rows = rng.choice(count, min(count, training.batch), replace=False)
            yield torch.from_numpy(rows)

    def losses(rows: Tensor, _: int) -> Iterator[Tensor]:
        yield loss(rows)

    fit(
        head,
        losses,
        Course(1, training.steps, batches, training.seed),
        Descent(optimizer, schedule, device=torch.device("cpu")),
        title=title,
        remedy=f"lower the learning rate ({training.lr})",
    )
    head.eval()


def as_transform(head: nn.Module) -> Callable[..., np.ndarray]:
    """``head`` as a function of float32 arrays (B, d_i), which are scaled to length one first."""
    head = head.cpu().eval()

    def transform(*blocks: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows = [functional.normalize(torch.tensor(block), dim=1) for block in blocks]
            made: np.ndarray = head(*rows).numpy()
        return made

    return transform


def as_arrays(head: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """The weights of ``head`` by file name, ``prefix.NAME.npy``."""
    tensors = head.state_dict().items()
    return {f"{prefix}.{name}.npy": tensor.cpu().numpy() for name, tensor in tensors}
