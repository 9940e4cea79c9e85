"""A small residual network on top of a ridge regression, trained on features that are kept."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.adaptation.pairs import Pairs, affine
from searchspaces import Lift, Projection
from searchspaces.support.seeding import seeded

HIDDEN = 256
_BATCH = 512
_RATE = 1e-3
_DECAY = 1e-2


def residual_epochs(pairs: Pairs, *, seed: int) -> Iterator[Projection]:
    """Train ridge(x) + B ReLU(A x̂ + a), x̂ the standardised features, and yield it every epoch.

    The ridge regression stays; B starts at zero, so the network starts as the regression. The loss
    is 1 − cosine of unit vectors seen from the mean of the gallery's. The encoder is not run.

    Args:
        pairs: Features and gallery vectors of the training pictures.
        seed: Of A and of the order of pictures.
    """
    ridge = pairs.ridge
    features = torch.from_numpy(((pairs.features - ridge.mean) / ridge.scale).astype(np.float32))
    fitted = torch.from_numpy(ridge(pairs.features).astype(np.float32))
    vectors = torch.from_numpy(pairs.vectors)
    centre = vectors.mean(dim=0)
    targets = F.normalize(vectors - centre, dim=1)
    with seeded(seed):
        inner = nn.Linear(features.shape[1], HIDDEN)
        outer = nn.Linear(HIDDEN, vectors.shape[1], bias=False)
    nn.init.zeros_(outer.weight)
    optimiser = torch.optim.AdamW(
        [*inner.parameters(), *outer.parameters()], lr=_RATE, weight_decay=_DECAY
    )
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(features), generator=generator).split(_BATCH):
            found = fitted[rows] + outer(inner(features[rows]).relu())
            seen = F.normalize(F.normalize(found, dim=1) - centre, dim=1)
            loss = 1 - (seen * targets[rows]).sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield _projection(pairs, inner, outer.weight.detach())


@torch.no_grad()
def _projection(pairs: Pairs, inner: nn.Linear, outer: Tensor) -> Projection:
    """The network as a projection of the features as they are."""
    ridge = pairs.ridge
    projection = pairs.projection(Lift("mlp", HIDDEN))
    hidden = projection.lift.inner
    weight = inner.weight.double().numpy() / ridge.scale
    hidden.weight.copy_(torch.from_numpy(weight))
    hidden.bias.copy_(torch.from_numpy(inner.bias.double().numpy() - weight @ ridge.mean))
    weights, bias = ridge.folded
    affine(projection.linear, np.concatenate([weights, outer.double().numpy().T]), bias)
    return projection
