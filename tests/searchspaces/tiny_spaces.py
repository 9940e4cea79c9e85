"""Elastic spaces whose networks are built in milliseconds, and supernets to tell slices apart."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruning import load_model, save_model
from searchspaces import (
    MBConvSpace,
    QueryModel,
    ResNetSpace,
    ShuffleNetSpace,
    Supernet,
    ViTSpace,
    rebuild,
)

MBCONV = MBConvSpace(
    resolutions=(16, 24),
    stem_widths=(8, 16),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "expansions": [1, 2.5], "strides": [1, 2]},
        {"widths": [16, 24], "depths": [1, 3], "kernels": [3, 5, 7], "activation": "relu"},
    ],
    head_widths=(32, 48),
    se=True,
)
PLAIN = MBConvSpace(
    resolutions=(16,),
    stages=[{**vars(stage), "se": None} for stage in MBCONV.stages],
    head_widths=(32,),
)
SWITCHED = MBConvSpace(
    resolutions=(16,),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "strides": [1], "activation": ["hswish", "relu"]},
        {"widths": [16], "depths": [1], "kernels": [3, 7], "activation": "relu", "se": True},
        {"widths": [16, 24], "depths": [2], "kernels": [3, 5, 7], "activation": ["relu"]},
    ],
    head_widths=(32,),
    se=[True, False],
)
RESNET = ResNetSpace(
    resolutions=(16, 25),
    stem_widths=(8, 16),
    stem_strides=(1, 2, 4),
    stages=[
        {"widths": [8, 16], "depths": [1, 2], "kernels": [3, 5], "strides": [1, 2]},
        {"widths": [16, 24], "depths": [1, 3], "ratios": [0.25, 0.5], "block": "bottleneck"},
        {
            "widths": [32],
            "depths": [2],
            "block": "bottleneck",
            "kernels": [1, 3, 7],
            "ratios": [0.5],
        },
    ],
)
FIXED = ResNetSpace(
    resolutions=(16,),
    stem_widths=(16,),
    stem_strides=(1,),
    stages=[
        {"widths": [16], "depths": [1, 2], "strides": [1], "kernels": [3, 5]},
        {"widths": [16], "depths": [1], "strides": [2]},
    ],
)
VIT = ViTSpace(
    resolutions=(16, 32),
    patches=(4, 8),
    stem_width=8,
    widths=(16, 24, 40),
    depths=(2, 3, 5),
    heads=(1, 2, 3),
    head_width=8,
    ratios=(0.5, 1, 2.3),
    parts=2,
)
UNIFORM = ViTSpace(
    resolutions=(24,), patches=(8,), stems=("conv",), widths=(32,), depths=(1, 2), parts=1
)
SHUFFLENET = ShuffleNetSpace(
    resolutions=(16, 23),
    stem_width=8,
    widths=(32, 48),
    depths=(2, 2),
    ratios=(0.5, 1, 2),
    head_width=40,
)


def eventful_supernet(space: Any, dimension: int = 12, **options: Any) -> Supernet:
    """Make a supernet whose norms, linear maps and learnt kernels all differ from fresh ones."""
    torch.manual_seed(0)
    supernet: Supernet = space.supernet(dimension, **options)
    with torch.no_grad():
        for name, tensor in supernet.named_parameters():
            if "transforms" in name:
                tensor.normal_(std=0.3)
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                for tensor in module.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Linear):
                for tensor in module.parameters():
                    tensor.normal_(std=0.2)
    return supernet.eval()


def assert_made_again(model: QueryModel, folder: Path) -> None:
    """That a model's origin and its file each give the same network."""
    images = torch.rand(2, 3, model.resolution, model.resolution)
    again = rebuild(json.loads(json.dumps(model.origin))).eval()
    again.load_state_dict(model.state_dict())
    save_model(model, folder / "model.safetensors")
    loaded = load_model(folder / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), atol=0, rtol=0)
        torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)
