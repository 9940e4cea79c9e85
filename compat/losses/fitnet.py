"""Regression through a learnable regressor that is dropped after training."""

import torch
from torch import Tensor, nn

from compat.losses.base import CompatibilityLoss, register_loss
from compat.targets import AlignmentTargets, Batch


@register_loss("fitnet", requires=("gallery_embeddings",), centred=True)
class FitNet(CompatibilityLoss):
    """mean of ½‖r(q) − g‖², r a learnable linear map (d, d) that starts as the identity.

    Romero et al., "FitNets: Hints for thin deep nets", ICLR 2015, eq. 3, with embeddings in place
    of inner features. r belongs to the loss: it is trained along and dropped with it. With r kept
    as the query model's last layer this is `regression`; without it the query space may drift
    from the gallery's by any linear map that r learns to undo, which is what this baseline shows.
    The code of the field (of D3still, CVPR 2024) calls FitNet the mean squared error of the
    embeddings, without a regressor: that is `regression` with ``distance="l2"``, up to a factor.
    Zero at q = g for the first r. Images do not interact; labels are not used.
    """

    regressor: nn.Parameter

    def prepare(self, targets: AlignmentTargets) -> None:
        identity = torch.eye(targets.dimension, device=targets.vectors.device)
        self.regressor = nn.Parameter(identity)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return (query @ self.regressor.T - target).square().sum(1).mean() / 2
