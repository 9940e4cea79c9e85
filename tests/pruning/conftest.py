"""Small query models that are made once."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from searchspaces import QueryModel, timm_query_model
from searchspaces.cost import evaluating

SIDE = {"vit_tiny_patch16_224": 32, "mobilevit_xxs": 64}


@cache
def _uncut(name: str) -> QueryModel:
    torch.manual_seed(0)
    model = timm_query_model(name, 16, resolution=SIDE.get(name, 32), pretrained=False)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="session")
def uncut() -> Any:
    """Make (once) the uncut query model of a timm name, with BatchNorms unlike the identity."""
    return _uncut


Share = Callable[[QueryModel, QueryModel], float]


@pytest.fixture(scope="session")
def share() -> Share:
    """Compare what one query model costs to what another does, by PyTorch's own count."""

    def work(model: QueryModel) -> int:
        with FlopCounterMode(display=False) as counted, torch.no_grad(), evaluating(model):
            model(torch.zeros(1, 3, model.resolution, model.resolution))
        return counted.get_total_flops()

    return lambda model, whole: work(model) / work(whole)
