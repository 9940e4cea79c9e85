"""A timm network as the backbone of a query model."""

from typing import Any

from torch import Tensor, nn


class TimmBackbone(nn.Module):
    """Any timm network up to the input of its classifier, pooled the way its family pools."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        features = self.network.forward_features(images)
        return self.network.forward_head(features, pre_logits=True)
