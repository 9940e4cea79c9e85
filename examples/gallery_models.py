"""Gallery models that somebody else trained, as factories for `querynas gallery build --model`.

    querynas gallery build --data DATA --out galleries/squeezenet \
        --model examples.gallery_models:squeezenet,weights=squeezenet1_1_imagenet_tvnames.pth
"""

import torch
from torch import Tensor, nn


def squeezenet(weights: str) -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al., 2016), pooled features, 512-d, from a torchvision file."""
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1(weights=None)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return _Normalised(
        nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resolution=224,
    )


def cifar_resnet20(weights: str) -> nn.Module:
    """The CIFAR ResNet-20 of He et al. (CVPR 2016, section 4.2), pooled features, 64-d."""
    content = torch.load(weights, map_location="cpu", weights_only=True)
    state = {k.removeprefix("module."): v for k, v in content["state_dict"].items()}
    network = _CifarResNet(blocks=3)
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("linear.")})
    return _Normalised(
        network, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resolution=32
    )


class _Normalised(nn.Module):
    """A network on images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        resolution: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = {"resolution": resolution, "fit": "crop", "mean": mean, "std": std}
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.grow = width - inputs

    def forward(self, maps: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(maps)))
        out = self.bn2(self.conv2(out))
        if self.grow:  # the shortcut without parameters: subsample, pad the channels with zeros
            side = self.grow // 2
            maps = nn.functional.pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return torch.relu(out + maps)


class _CifarResNet(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._layer(16, 16, blocks, stride=1)
        self.layer2 = self._layer(16, 32, blocks, stride=2)
        self.layer3 = self._layer(32, 64, blocks, stride=2)

    @staticmethod
    def _layer(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = _Block(inputs, width, stride)
        return nn.Sequential(first, *(_Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return maps.mean((2, 3))
