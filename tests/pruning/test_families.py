"""Every supported family can be cut, and what is cut is what it should be."""

import contextlib
import copy
import io
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from timm.models.regnet import RegStage
from timm.utils.model import reparameterize_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from pruning import (
    SUPPORTED,
    PruningError,
    check_prunable,
    cut,
    kept_channels,
    load_model,
    save_model,
    stages,
)
from searchspaces import QueryModel, timm_query_model
from searchspaces.out_of_place import out_of_place
from searchspaces.projection import Projection

SIDE = 64
NEAR_ZERO = ("gamma", "gamma_xca", "attention_biases", "relative_position_bias_table")
every_family = pytest.mark.parametrize("name", SUPPORTED.values(), scope="module")
"""One family after the other through all tests, for processes that share this file."""

EXPORTED = (
    *("deit_tiny_patch16_224", "edgenext_xx_small", "efficientnet_b0", "ghostnet_100"),
    *("levit_128s", "mobilenetv2_050", "resnet18", "swin_tiny_patch4_window7_224"),
)
"""Networks that stand for all in ONNX: what any of the families is made of is in one of them."""


@cache
def whole(name: Any) -> Any:
    """A network none of whose branches is near zero, as some are at their start."""
    torch.manual_seed(0)
    model = timm_query_model(name, 16, resolution=SIDE, pretrained=False).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
        for key, parameter in model.named_parameters():
            if key.rpartition(".")[2] in NEAR_ZERO:
                parameter.uniform_(-0.5, 0.5)
            if "qkv" in key and parameter.ndim == 2:
                parameter *= 5.0  # attention that is not nearly uniform
    return model


@cache
def half(name: Any) -> Any:
    return cut(whole(name), 0.5)


def images(count: Any = 2) -> Any:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def outputs(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(images())


def silenced(model: Any, kept: Any) -> Any:
    """A copy of a whole network in which the channels that are not kept carry nothing."""
    model = copy.deepcopy(model)
    layers = dict(model.named_modules())
    with torch.no_grad():
        for name, sides in kept.items():
            if name not in layers:
                continue  # a bare parameter, whose channels end in silenced layers
            weight = layers[name].weight
            if "out" in sides:
                gone = np.setdiff1d(np.arange(len(weight)), sides["out"])
                weight[gone] = 0
                if layers[name].bias is not None:
                    layers[name].bias[gone] = 0
            if "in" in sides:
                parts = getattr(layers[name], "groups", 1)
                gone = np.setdiff1d(np.arange(weight.shape[1] * parts), sides["in"])
                rows = len(weight) // parts
                for part, column in zip(*np.divmod(gone, weight.shape[1]), strict=True):
                    weight[part * rows : (part + 1) * rows, column] = 0
    return model


class Operators(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.run: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.run.append(str(func))
        return func(*args, **(kwargs or {}))


def without_repeats(model: Any) -> Any:
    """A copy with one block of each kind, whose export takes less than half of the time.

    A block is of a kind that was there if all operators that run in it ran in blocks of its class
    before. Blocks that change the shape of their maps all stay, layers of a few operators are none.
    """
    model = copy.deepcopy(model)
    places = [
        (each, name)
        for each in model.modules()
        if isinstance(each, nn.Sequential | RegStage)
        for name, _ in each.named_children()
    ]
    kinds: dict[type, set[str]] = defaultdict(set)
    starts: list[int] = []
    operators = Operators()

    def begin(*_: Any) -> None:
        starts.append(len(operators.run))

    def end(holder: Any, name: str, taken: Any, given: Any) -> None:
        own, kind = operators.run[starts.pop() :], type(getattr(holder, name))
        if kind is not nn.Sequential and len(own) > 3:
            if given.shape == taken[0].shape and kinds[kind].issuperset(own):
                setattr(holder, name, nn.Identity())
            kinds[kind].update(own)

    for holder, name in places:
        child = getattr(holder, name)
        child.register_forward_pre_hook(begin)
        child.register_forward_hook(
            lambda _, taken, given, holder=holder, name=name: end(holder, name, taken, given)
        )
    with operators:
        outputs(model)
    for holder, name in places:
        getattr(holder, name)._forward_pre_hooks.clear()
        getattr(holder, name)._forward_hooks.clear()
    left = Operators()
    with left:
        outputs(model)
    assert set(left.run) == set(operators.run)
    return model


@pytest.mark.parametrize(
    "name", [*SUPPORTED.values(), "fastvit_sa12", "ghostnetv2_100"], scope="module"
)
def test_a_cut_network_is_the_whole_one_without_the_channels_that_went(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(maps: Any, shape: Any, weight: Any, bias: Any, eps: Any = 1e-5) -> Any:
        return maps * weight + bias  # the statistics of a LayerNorm depend on all channels

    monkeypatch.setattr(F, "layer_norm", scaled)
    pruned = half(name)
    expected = outputs(silenced(whole(name), kept_channels(pruned)))
    torch.testing.assert_close(outputs(pruned), expected, atol=5e-4, rtol=0)
    assert (outputs(whole(name)) - expected).abs().max() > 0.05


@every_family
def test_half_of_the_work_and_less_can_be_reached(name: str, share: Any) -> None:
    assert 0.2 < share(half(name), whole(name)) < 0.42
    assert share(cut(whole(name), 0.75), whole(name)) < 0.3


@every_family
def test_preparing_for_a_cut_changes_no_output(name: str) -> None:
    torch.testing.assert_close(outputs(cut(whole(name), 0.0)), outputs(whole(name)))


@every_family
def test_cut_networks_are_trained_saved_and_loaded(name: str, tmp_path: Path) -> None:
    pruned = copy.deepcopy(half(name)).train()
    pruned(images()).sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in pruned.parameters())
    save_model(pruned, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(outputs(again), outputs(pruned))
    assert kept_channels(again) == kept_channels(pruned)


@every_family
def test_cut_networks_are_timm_networks(name: str) -> None:
    network = half(name).backbone.network
    before = whole(name).backbone.network
    with torch.no_grad():
        maps = network.forward_features(images())
        assert network.forward_head(maps, pre_logits=True).shape == (2, network.head_hidden_size)
    assert network.num_features in (maps.shape[1], maps.shape[-1])
    assert network.num_features < before.num_features
    assert network.default_cfg == before.default_cfg


def made_of(name: str) -> set[Any]:
    """The operators that run in a cut network, and PyTorch's modules in it."""
    operators, network = Operators(), half(name)
    with operators, out_of_place(network):  # as networks are exported
        outputs(network)
    modules = {type(each) for each in network.modules()}
    return {*operators.run, *(kind for kind in modules if kind.__module__.startswith("torch."))}


def test_the_networks_that_are_exported_stand_for_all() -> None:
    exported = set().union(*map(made_of, EXPORTED))
    for name in SUPPORTED.values():
        assert made_of(name) <= exported, name


@pytest.mark.parametrize("name", EXPORTED, scope="module")
def test_cut_networks_give_the_same_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    pruned, file = without_repeats(half(name)), str(tmp_path / "model.onnx")
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        out_of_place(pruned),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            pruned,
            (images(),),
            file,
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)
    (found,) = session.run(None, {"images": images().numpy()})
    np.testing.assert_allclose(found, outputs(pruned).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "name", ["fastvit_t8", "mobileone_s0", "repvgg_a0", "repghostnet_050"], scope="module"
)
def test_branches_of_cut_networks_can_be_fused_for_deployment(name: str) -> None:
    pruned = half(name)
    fused = copy.deepcopy(pruned)
    fused.backbone.network = reparameterize_model(fused.backbone.network)
    assert sum(1 for _ in fused.parameters()) < sum(1 for _ in pruned.parameters())
    torch.testing.assert_close(outputs(fused), outputs(pruned), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "name", ["edgenext_xx_small", "levit_128s", "regnety_002", "ghostnet_100"], scope="module"
)
def test_cut_networks_can_be_cut_again(name: str, share: Any) -> None:
    once = cut(whole(name), 0.3)
    twice = cut(once, 0.3)
    assert share(twice, whole(name)) < share(once, whole(name))
    for layer, sides in kept_channels(twice).items():
        for side, kept in sides.items():
            assert set(kept) <= set(kept_channels(once).get(layer, {}).get(side, kept))


def test_single_stages_of_window_transformers_lose_their_inner_widths() -> None:
    model = whole("tiny_vit_5m_224")
    stage = list(stages(model))[-1]
    before, after = (
        each.backbone.network.stages[-1].blocks[0] for each in (model, cut(model, {stage: 0.5}))
    )
    assert after.attn.key_dim == before.attn.key_dim // 2
    assert after.mlp.fc1.out_features == before.mlp.fc1.out_features // 2


class Stubborn(nn.Module):
    """A network that insists on a number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())

    def forward(self, pictures: Any) -> Any:
        return self.body(self.stem(pictures)).reshape(-1, 32, 64).mean(-1)


def test_a_network_that_cannot_be_cut_is_named() -> None:
    model = QueryModel(Stubborn(), Projection(32, 4), resolution=8)
    with pytest.raises(PruningError, match="'Stubborn' cannot be cut"):
        check_prunable(model)
    check_prunable(whole("lcnet_050"))


def test_a_network_whose_channels_would_be_mixed_up_is_refused() -> None:
    model = timm_query_model("ghostnetv3_100", 16, resolution=SIDE, pretrained=False)
    with pytest.raises(PruningError, match="misreads its GhostModuleV3"):
        check_prunable(model)
