"""How much each capacity's loss counts."""

import torch
from torch import Tensor, nn


class UncertaintyWeights(nn.Module):
    """Learnt weights of several losses by homoscedastic uncertainty.

    Kendall et al., "Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics", CVPR 2018, eq. 7: loss i becomes L_i / (2 σ_i²) + log σ_i, with s_i = log σ_i²
    learnt from 0.

    SFSC (Wu et al., CVPR 2023) estimates its uncertainty by evidence for classes instead. That
    needs class logits, which losses towards gallery vectors do not have.

    Args:
        count: Number of losses.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(count))

    def forward(self, loss: Tensor, index: int) -> Tensor:
        """Return the weighted loss number `index`."""
        log_variance = self.log_variances[index]
        return 0.5 * (torch.exp(-log_variance) * loss + log_variance)
