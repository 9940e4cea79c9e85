"""The modules of a small vision transformer, for a standalone network and a supernet alike.

Every module takes its convolution, linear and LayerNorm classes from `Layers`: `PLAIN` ones make a
standalone network, `ELASTIC` ones a network whose parts can be switched.

Tokens stay in their grid, (B, side, side, width), from the stem to the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from searchspaces.elastic.layers import ElasticConv2d, ElasticLayerNorm, ElasticLinear
from searchspaces.vit.plan import BlockPlan, NetworkPlan, StemPlan


@dataclass(frozen=True)
class Layers:
    """The classes that a network is made of."""

    conv: type[nn.Conv2d] = nn.Conv2d
    linear: type[nn.Linear] = nn.Linear
    norm: type[nn.LayerNorm] = nn.LayerNorm


PLAIN = Layers()
ELASTIC = Layers(ElasticConv2d, ElasticLinear, ElasticLayerNorm)


class Stem(nn.Module):
    """Images (B, 3, r, r) to tokens (B, r / patch, r / patch, width).

    Plain patches (Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021), or a stack of
    3x3 convolutions of stride 2 with BatchNorm and ReLU (Xiao et al., "Early convolutions help
    transformers see better", NeurIPS 2021). A linear map to the embedding width ends both.
    """

    def __init__(self, plan: StemPlan, width: int, layers: Layers) -> None:
        super().__init__()
        convolutions = [
            nn.Sequential(
                nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for channels_in, channels in pairwise((3, *plan.widths))
        ]
        self.reduce = (
            nn.Sequential(*convolutions) if convolutions else nn.PixelUnshuffle(plan.patch)
        )
        self.embed = layers.conv(plan.channels, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.embed(self.reduce(images))
        return maps.permute(0, 2, 3, 1).contiguous()  # or every LayerNorm would copy


class Attention(nn.Module):
    """Self-attention with heads of a fixed width.

    The outputs of `qkv` are laid out as (head, query/key/value, channel), so that the first
    outputs are all of the first heads. Attributes are called as in timm, so that pruning knows it.
    """

    def __init__(self, plan: BlockPlan, layers: Layers) -> None:
        super().__init__()
        self.num_heads = plan.heads
        self.scale = plan.head_width**-0.5
        self.qkv = layers.linear(plan.width, 3 * plan.attended)
        self.proj = layers.linear(plan.attended, plan.width)

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens.flatten(1, 2)).unflatten(-1, (self.num_heads, 3, -1))
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.proj(mixed.transpose(1, 2).flatten(2)).view_as(tokens)


class Block(nn.Module):
    """Position encoding, attention and MLP, each added to its input.

    The position encoding is a depthwise 3x3 convolution over the grid of tokens, whose zero padding
    tells where the borders are (Chu et al., "Conditional positional encodings for vision
    transformers", ICLR 2023). It stands in every block, as in Li et al., "UniFormer", ICLR 2022.
    """

    def __init__(self, plan: BlockPlan, layers: Layers) -> None:
        super().__init__()
        self.position = layers.conv(plan.width, plan.width, 3, padding=1, groups=plan.width)
        self.attention_norm = layers.norm(plan.width)
        self.attention = Attention(plan, layers)
        self.mlp_norm = layers.norm(plan.width)
        self.expand = layers.linear(plan.width, plan.hidden)
        self.activation = nn.GELU()
        self.reduce = layers.linear(plan.hidden, plan.width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.position(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.reduce(self.activation(self.expand(self.mlp_norm(tokens))))


class ViTBackbone(nn.Module):
    """Normalised images (B, 3, r, r) to pooled features (B, width).

    Args:
        plan: The network.
        layers: The classes of its layers.
        stems: All stems that it holds; the plan's is the one in use.
    """

    def __init__(self, plan: NetworkPlan, layers: Layers, stems: Sequence[StemPlan]) -> None:
        super().__init__()
        self.stem = plan.stem.name
        self.depth = len(plan.blocks)
        self.stems = nn.ModuleDict({stem.name: Stem(stem, plan.width, layers) for stem in stems})
        self.blocks = nn.ModuleList(Block(block, layers) for block in plan.blocks)
        self.norm = layers.norm(plan.width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stems[self.stem](images)
        for block in islice(self.blocks, self.depth):
            tokens = block(tokens)
        return self.norm(tokens.mean((1, 2)))
