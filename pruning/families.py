"""What the dependency graph does not see by itself in some families of timm.

torch-pruning follows channels through convolutions, linear layers, norms, sums and simple reshapes.
The blocks below mix channels in ways that it misreads. For each of them stands here, in one
function, which channels belong together; to torch-pruning the block is then a single layer. Where
attributes of a block hold widths that its forward pass or its reparameterisation reads, a second
function sets them anew after a cut.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from timm.models import (
    byobnet,
    edgenext,
    efficientvit_mit,
    fastvit,
    ghostnet,
    levit,
    swin_transformer,
    tiny_vit,
)
from torch import Tensor, nn

from pruning.channels import Channels, Labels

SUPPORTED = {
    "ConvNeXt": "convnext_atto",
    "DeiT": "deit_tiny_patch16_224",
    "EdgeNeXt": "edgenext_xx_small",
    "EfficientNet": "efficientnet_b0",
    "EfficientViT": "efficientvit_b0",
    "FastViT": "fastvit_t8",
    "GhostNet": "ghostnet_100",
    "HardCoRe-NAS": "hardcorenas_a",
    "LCNet": "lcnet_050",
    "LeViT": "levit_128s",
    "MnasNet": "semnasnet_050",
    "MobileNetV2": "mobilenetv2_050",
    "MobileNetV3": "mobilenetv3_small_050",
    "MobileNetV4": "mobilenetv4_conv_small",
    "MobileOne": "mobileone_s0",
    "MobileViT": "mobilevit_xxs",
    "RegNet": "regnety_002",
    "RepGhostNet": "repghostnet_050",
    "RepVGG": "repvgg_a0",
    "ResNet": "resnet18",
    "ResNet, bottlenecks": "resnet50",
    "Swin": "swin_tiny_patch4_window7_224",
    "TinyNet": "tinynet_e",
    "TinyViT": "tiny_vit_5m_224",
    "ViT": "vit_tiny_patch16_224",
}
"""Families of timm that can be cut, each with the model that the tests cut."""


@dataclass(frozen=True)
class Block:
    """How a block appears in the dependency graph.

    Attributes:
        widths: Numbers of its input and output channels.
        wire: Labels the layers inside from the labels of its two sides.
    """

    widths: Callable[[Any], tuple[int, int]]
    wire: Callable[[Any, Channels, Labels, Labels], None]


def blocks(model: nn.Module) -> Iterator[tuple[Any, Block]]:
    """Yield the blocks that stand for themselves in the dependency graph, none inside another."""
    for child in model.children():
        block = _BLOCKS.get(type(child)) or (_ATTENTION if _is_attention(child) else None)
        if block is not None:
            yield child, block
        else:
            yield from blocks(child)


def prepare(model: nn.Module) -> None:
    """Let blocks that assume equal widths inside and outside take any; outputs stay the same."""
    for module in model.modules():
        if type(module) is edgenext.CrossCovarianceAttn:
            module.__class__ = AnyWidthCrossCovarianceAttn
        elif type(module) is fastvit.Attention:
            module.__class__ = AnyWidthFastVitAttention


def mend(model: nn.Module) -> None:
    """Set the attributes that hold widths, after a cut."""
    for module in model.modules():
        mender = _MENDERS.get(type(module)) or (_mend_attention if _is_attention(module) else None)
        if mender is not None:
            mender(module)


def forget(model: nn.Module) -> None:
    """Empty the caches of attention biases of LeViT and TinyViT.

    They keep a part of the autograd graph, which can neither be copied nor be used twice.
    """
    for module in model.modules():
        if hasattr(module, "attention_bias_cache"):
            setattr(module, "attention_bias_cache", {})  # noqa: B010


# ---- Transformers: a head's dimensions go in all heads at once, so that the heads stay equal


def _attention(attn: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """Queries, keys and values are one linear layer, which is read as (3, heads, dimensions)."""
    dims = channels.fresh(attn.qkv.out_features // (3 * attn.num_heads))
    channels.put(attn.qkv, "in", into)
    channels.put(attn.qkv, "out", np.tile(dims, 3 * attn.num_heads))
    channels.put(attn.proj, "in", np.tile(dims, attn.num_heads))
    channels.put(attn.proj, "out", out)
    for norm in ("q_norm", "k_norm"):
        _norm(getattr(attn, norm, None), channels, dims)
    _norm(getattr(attn, "norm", None), channels, np.tile(dims, attn.num_heads))
    if getattr(attn, "gate", None) is not None:
        channels.put(attn.gate, "in", into)
        channels.put(attn.gate, "out", np.tile(dims, attn.num_heads))


def _norm(norm: nn.Module | None, channels: Channels, labels: Labels) -> None:
    if norm is not None and not isinstance(norm, nn.Identity):
        channels.put(norm, "both", labels)


def _mlp(mlp: Any, channels: Channels, stream: Labels) -> None:
    hidden = channels.fresh(mlp.fc1.out_features)
    channels.put(mlp.fc1, "in", stream)
    channels.put(mlp.fc1, "out", hidden)
    channels.put(mlp.fc2, "in", hidden)
    channels.put(mlp.fc2, "out", stream)


def _mend_attention(attn: Any) -> None:
    for attribute, width in {
        "head_dim": attn.proj.in_features // attn.num_heads,
        "attn_dim": attn.proj.in_features,
    }.items():
        if hasattr(attn, attribute):
            setattr(attn, attribute, width)
    _keep_scale(attn, attn.proj.in_features // attn.num_heads)


def _keep_scale(attn: Any, width: int) -> None:
    """PyTorch's fused attention divides by the root of the new width, the weights are used to that
    of the old one; written out, attention goes by its attribute `scale`."""
    if hasattr(attn, "fused_attn") and not math.isclose(attn.scale, width**-0.5):
        attn.fused_attn = False


def _is_attention(module: Any) -> bool:
    linear = [getattr(module, name, None) for name in ("qkv", "proj")]
    return hasattr(module, "num_heads") and all(isinstance(each, nn.Linear) for each in linear)


def _swin_block(block: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """Windows are cut out and put back with slices and reshapes over channels-last maps."""
    channels.tie(into, out)
    _attention(block.attn, channels, into, into)
    _norm(block.norm1, channels, into)
    _norm(block.norm2, channels, into)
    _mlp(block.mlp, channels, into)


def _swin_merging(merging: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """Four neighbouring pixels are laid side by side, so a channel occurs four times."""
    channels.put(merging.norm, "both", np.tile(into, 4))
    channels.put(merging.reduction, "in", np.tile(into, 4))
    channels.put(merging.reduction, "out", out)


def _tiny_vit_block(block: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """Every head has its queries, keys and values side by side, and a norm before them."""
    channels.tie(into, out)
    attn = block.attn
    keys, values = channels.fresh(attn.key_dim), channels.fresh(attn.val_dim)
    channels.put(attn.norm, "both", into)
    channels.put(attn.qkv, "in", into)
    channels.put(attn.qkv, "out", np.tile(np.concatenate([keys, keys, values]), attn.num_heads))
    channels.put(attn.proj, "in", np.tile(values, attn.num_heads))
    channels.put(attn.proj, "out", into)
    channels.put(block.local_conv.conv, "both", into)
    channels.put(block.local_conv.bn, "both", into)
    channels.put(block.mlp.norm, "both", into)
    _mlp(block.mlp, channels, into)


def _mend_tiny_vit(attn: Any) -> None:
    attn.out_dim = attn.proj.in_features
    attn.val_dim = attn.out_dim // attn.num_heads
    attn.key_dim = (attn.qkv.out_features // attn.num_heads - attn.val_dim) // 2
    _keep_scale(attn, attn.key_dim)


def _levit_attention(attn: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """Values are wider than queries and keys; every linear layer has its own BatchNorm."""
    keys, values = channels.fresh(attn.key_dim), channels.fresh(attn.val_dim)
    _levit_linear(
        attn.qkv,
        channels,
        into,
        np.tile(np.concatenate([keys, keys, values]), attn.num_heads),
    )
    _levit_linear(attn.proj.ln, channels, np.tile(values, attn.num_heads), out)


def _levit_downsample(attn: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """As the other attention of LeViT, with queries of their own from every second position."""
    keys, values = channels.fresh(attn.key_dim), channels.fresh(attn.val_dim)
    _levit_linear(attn.kv, channels, into, np.tile(np.concatenate([keys, values]), attn.num_heads))
    _levit_linear(attn.q.ln, channels, into, np.tile(keys, attn.num_heads))
    _levit_linear(attn.proj.ln, channels, np.tile(values, attn.num_heads), out)


def _levit_linear(layer: Any, channels: Channels, into: Labels, out: Labels) -> None:
    channels.put(layer.linear, "in", into)
    channels.put(layer.linear, "out", out)
    channels.put(layer.bn, "both", out)


def _mend_levit_attention(attn: Any) -> None:
    keys = (_columns(attn.qkv.bn) - _columns(attn.proj.ln.linear)) // 2
    _mend_levit(attn, keys, _columns(attn.proj.ln.linear))


def _mend_levit_downsample(attn: Any) -> None:
    _mend_levit(attn, _columns(attn.q.ln.bn), _columns(attn.proj.ln.linear))


def _mend_levit(attn: Any, keys: int, values: int) -> None:
    attn.key_attn_dim, attn.val_attn_dim = keys, values
    attn.key_dim, attn.val_dim = keys // attn.num_heads, values // attn.num_heads


def _columns(layer: Any) -> int:
    return layer.weight.shape[1 if layer.weight.ndim > 1 else 0]


# ---- Hybrids


def _edgenext_block(block: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """Channels are split into equal parts, which are convolved one after another and summed up, so
    a channel goes together with those at its place in the other parts."""
    channels.tie(into, out)
    parts = len(block.convs) + 1
    size = -(-len(into) // parts)
    for first in range(size, len(into), size):
        part = into[first : first + size]
        channels.tie(into[: len(part)], part)
    for conv in block.convs:
        channels.put(conv, "both", into[:size])
    if block.pos_embd is not None:
        channels.put(block.pos_embd.token_projection, "out", into)
    _norm(block.norm_xca, channels, into)
    _attention(block.xca, channels, into, into)
    _norm(block.norm, channels, into)
    _mlp(block.mlp, channels, into)
    for gamma in ("gamma_xca", "gamma"):
        if getattr(block, gamma) is not None:
            channels.put(f"{channels.name(block)}.{gamma}", "both", into)


class AnyWidthCrossCovarianceAttn(edgenext.CrossCovarianceAttn):
    """EdgeNeXt's attention between channels, for heads that need not fill up the stream.

    Ali et al., "XCiT: Cross-covariance image transformers", NeurIPS 2021, eq. 3. timm's forward
    pass gives the heads' output the shape of the input; this one gives it the heads' own.
    """

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 4, 1)
        queries, keys, values = heads.unbind(0)
        queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
        weights = (queries @ keys.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        mixed = self.attn_drop(weights) @ values
        return self.proj_drop(self.proj(mixed.permute(0, 3, 1, 2).flatten(2)))


class AnyWidthFastVitAttention(fastvit.Attention):
    """FastViT's attention over maps, for heads that need not fill up the stream.

    timm's forward pass gives the heads' output the shape of the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            dropout = self.attn_drop.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        else:
            weights = (queries * self.scale @ keys.transpose(-2, -1)).softmax(dim=-1)
            mixed = self.attn_drop(weights) @ values
        tokens = self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return tokens.transpose(1, 2).unflatten(-1, x.shape[2:])


def _linear_attention(attn: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """The multi-scale convolutions of EfficientViT have three groups for each head, so whole heads
    go."""
    parts = 3 * attn.dim
    heads = channels.fresh(attn.qkv.conv.out_channels // parts)
    wide = np.repeat(heads, parts)
    channels.put(attn.qkv.conv, "in", into)
    channels.put(attn.qkv.conv, "out", wide)
    _norm(attn.qkv.norm, channels, wide)
    for depthwise, pointwise in attn.aggreg:
        channels.put(depthwise, "both", wide)
        channels.put(pointwise, "both", wide)
    channels.put(attn.proj.conv, "in", np.tile(np.repeat(heads, attn.dim), 1 + len(attn.aggreg)))
    channels.put(attn.proj.conv, "out", out)
    _norm(attn.proj.norm, channels, out)


# ---- Convolutional networks


def _ghost(ghost: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """The second half of the channels is made from the first half by a depthwise convolution."""
    conv, norm, _ = ghost.primary_conv
    first = out[: conv.out_channels]
    channels.tie(out[conv.out_channels :], first[: len(out) - len(first)])
    channels.put(conv, "in", into)
    channels.put(conv, "out", first)
    channels.put(norm, "both", first)
    for layer in ghost.cheap_operation[:2]:
        channels.put(layer, "both", first)


def _ghost_v2(ghost: Any, channels: Channels, into: Labels, out: Labels) -> None:
    """A second way through the block gates all of its channels."""
    _ghost(ghost, channels, into, out)
    conv, *others = ghost.short_conv
    channels.put(conv, "in", into)
    channels.put(conv, "out", out)
    for layer in others:
        channels.put(layer, "both", out)


def _mend_ghost(ghost: Any) -> None:
    ghost.out_chs = 2 * ghost.primary_conv[0].out_channels


def _mend_branches(block: Any) -> None:
    """FastViT's blocks are fused for deployment by the widths in their attributes."""
    if block.reparam_conv is not None:
        conv = block.reparam_conv
    elif block.conv_kxk is not None:
        conv = block.conv_kxk[0].conv
    else:  # a BatchNorm alone, whose convolution would be depthwise
        block.in_chs = block.out_chs = block.groups = block.identity.num_features
        return
    block.in_chs, block.out_chs, block.groups = conv.in_channels, conv.out_channels, conv.groups


def _mend_large_kernel(block: Any) -> None:
    conv = block.large_conv.conv if block.reparam_conv is None else block.reparam_conv
    block.in_chs, block.out_chs, block.groups = conv.in_channels, conv.out_channels, conv.groups


def _mend_mixer(mixer: Any) -> None:
    conv = mixer.mixer.conv_kxk[0].conv if mixer.reparam_conv is None else mixer.reparam_conv
    mixer.dim = conv.out_channels


def _mend_repvgg(block: Any) -> None:
    if block.reparam_conv is None:
        branches: Any = block.conv_kxk
        first: Any = branches[0] if isinstance(branches, nn.ModuleList) else branches
        block.groups = first.conv.groups


_ATTENTION = Block(lambda a: (a.qkv.in_features, a.proj.out_features), _attention)

_BLOCKS: dict[type[nn.Module], Block] = {
    swin_transformer.SwinTransformerBlock: Block(
        lambda b: (b.mlp.fc1.in_features, b.mlp.fc1.in_features), _swin_block
    ),
    swin_transformer.PatchMerging: Block(
        lambda m: (m.reduction.in_features // 4, m.reduction.out_features), _swin_merging
    ),
    tiny_vit.TinyVitBlock: Block(
        lambda b: (b.mlp.fc1.in_features, b.mlp.fc1.in_features), _tiny_vit_block
    ),
    levit.Attention: Block(
        lambda a: (_columns(a.qkv.linear), _columns(a.proj.ln.bn)), _levit_attention
    ),
    levit.AttentionDownsample: Block(
        lambda a: (_columns(a.kv.linear), _columns(a.proj.ln.bn)), _levit_downsample
    ),
    edgenext.SplitTransposeBlock: Block(
        lambda b: (b.mlp.fc1.in_features, b.mlp.fc1.in_features), _edgenext_block
    ),
    efficientvit_mit.LiteMLA: Block(
        lambda a: (a.qkv.conv.in_channels, a.proj.conv.out_channels), _linear_attention
    ),
    ghostnet.GhostModuleV2: Block(lambda g: (g.primary_conv[0].in_channels, g.out_chs), _ghost_v2),
    ghostnet.GhostModule: Block(lambda g: (g.primary_conv[0].in_channels, g.out_chs), _ghost),
}

MISREAD = (ghostnet.GhostModuleV3,)
"""Blocks that torch-pruning misreads so that shapes fit although wrong channels meet."""

_MENDERS: dict[type[nn.Module], Callable[[Any], None]] = {
    tiny_vit.Attention: _mend_tiny_vit,
    levit.Attention: _mend_levit_attention,
    levit.AttentionDownsample: _mend_levit_downsample,
    ghostnet.GhostModule: _mend_ghost,
    ghostnet.GhostModuleV2: _mend_ghost,
    fastvit.MobileOneBlock: _mend_branches,
    fastvit.ReparamLargeKernelConv: _mend_large_kernel,
    fastvit.RepMixer: _mend_mixer,
    byobnet.RepVggBlock: _mend_repvgg,
    byobnet.MobileOneBlock: _mend_repvgg,
}
