"""Adaptive BN: estimate BatchNorm statistics again after the weights around them changed."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from searchspaces.errors import SearchSpaceError


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace every BatchNorm's running statistics by averages over some batches, in place.

    Each batch counts the same: the running mean becomes the mean of the batch means, the running
    variance the mean of the (unbiased) batch variances. All other layers stay in evaluation mode,
    and so does the whole model afterwards. A model without BatchNorm is left as it is.
    Li et al., "EagleEye", ECCV 2020, section 3.3 (adaptive batch normalisation).

    Args:
        model: Any network.
        batches: Inputs of the model, at least one; a few hundred images are enough.

    Raises:
        SearchSpaceError: If there is no batch.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    seen = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's way of asking for the cumulative average
            norm.train()
        for batch in batches:
            model(batch)
            seen += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    if not seen:
        raise SearchSpaceError("recalibrating BatchNorm needs at least one batch of images")
