"""A dense network that is many capacities at once."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruning import PruningError, load_model, save_model
from pruning.nested import (
    METHODS,
    NestedModel,
    Scores,
    norm_parameters,
    parse_capacity,
    sparsity,
    top_share,
)
from searchspaces import count_macs

CAPACITIES = (0.2, 0.5, 1.0)


@pytest.fixture
def make(uncut: Any) -> Any:
    def made(method: Any, name: Any = "resnet10t") -> Any:
        return NestedModel(copy.deepcopy(uncut(name)), CAPACITIES, method=method)

    return made


def images(count: Any = 4) -> Any:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", METHODS)
def test_an_extracted_capacity_is_what_was_trained(make: Any, method: Any, tmp_path: Path) -> None:
    nested = make(method)
    nested.train()
    optimizer = torch.optim.SGD(nested.parameters(), lr=0.1)
    for capacity in CAPACITIES:  # statistics and weights move away from the start
        nested(images(), capacity)[:, 0].sum().backward()
    optimizer.step()
    nested.eval()
    for capacity in CAPACITIES:
        model = nested.extract(capacity)
        assert torch.equal(model(images()), nested(images(), capacity))
        save_model(model, tmp_path / "q.safetensors")
        assert torch.equal(load_model(tmp_path / "q.safetensors")(images()), model(images()))
    assert not torch.equal(nested(images(), 0.2), nested(images(), 0.5))


@pytest.mark.parametrize("method", ["structured", "masks"])
def test_capacities_between_are_to_be_had(make: Any, method: Any) -> None:
    nested = make(method)
    vectors = nested.extract(0.37)(images())
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("method", ["structured", "masks"])
def test_capacities_between_are_trained_as_they_are_extracted_where_statistics_stay(
    make: Any, method: Any
) -> None:
    nested = make(method).train()
    for module in nested.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    torch.testing.assert_close(nested(images(), 0.37), nested.extract(0.37)(images()))
    assert not torch.allclose(make(method).train()(images(), 0.37), nested(images(), 0.37))


def test_what_a_capacity_is_a_share_of(make: Any) -> None:
    structured, switchable, masks = map(make, ("structured", "switchable", "masks"))
    full = count_macs(structured.dense, 32)
    width = structured.extract(0.25).backbone.network.layer1[0].conv1.out_channels
    assert width == structured.dense.backbone.network.layer1[0].conv1.out_channels // 2
    for model in (structured, switchable):
        assert 0.45 < count_macs(model.extract(0.5), 32) / full < 0.55
        assert model.width(0.2) == math.sqrt(0.2)
    sparse = masks.extract(0.2)
    assert count_macs(sparse, 32) == full
    convolutions = [m.weight for m in sparse.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert sparsity(convolutions) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_belong_to_one_capacity(make: Any, method: Any) -> None:
    nested = make(method).train()
    before = {c: nested.extract(c).state_dict() for c in CAPACITIES}
    nested(images(), 0.5)
    changed = {
        c
        for c in CAPACITIES
        if any(not torch.equal(v, before[c][k]) for k, v in nested.extract(c).state_dict().items())
    }
    assert changed == {0.5}


def test_only_switchable_models_have_norms_for_each_capacity(make: Any) -> None:
    def own(nested: Any) -> Any:
        return {name.partition(".")[2] for name, _ in nested.shells.named_parameters()}

    assert not own(make("structured"))
    nested = make("switchable")
    assert own(nested) == norm_parameters(nested.dense)


def test_the_state_is_stored_and_loaded(make: Any) -> None:
    nested, other = make("switchable"), make("switchable")
    with torch.no_grad():
        for parameter in nested.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    other.load_state_dict(nested.state_dict())
    assert torch.equal(other.eval()(images(), 0.2), nested.eval()(images(), 0.2))


def test_statistics_can_be_put_back(make: Any) -> None:
    nested = make("structured")
    for capacity in CAPACITIES:
        model = nested.extract(capacity)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.fill_(0.3)
        nested.keep_statistics(capacity, model)
        assert torch.equal(nested.extract(capacity)(images()), model(images()))


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 1.0])
def test_a_mask_keeps_exactly_the_top_share(share: Any) -> None:
    scores = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = top_share(scores, share)
    count = max(1, math.ceil(share * scores.numel() - 1e-9))
    assert mask.unique().tolist() in ([0, 1], [1])
    assert int(mask.sum()) == count
    if count < scores.numel():
        assert scores.abs()[mask == 1].min() >= scores.abs()[mask == 0].max()


def test_masks_of_smaller_capacities_lie_inside_larger_ones() -> None:
    scores = torch.randn(6, 40)
    small, large = top_share(scores, 0.2), top_share(scores, 0.6)
    assert bool((small <= large).all())


def test_the_gradient_goes_straight_through_the_mask_to_the_scores_kept() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 6, requires_grad=True)
    scores = torch.randn(4, 6, requires_grad=True)
    mask = top_share(scores, 0.3)
    upstream = torch.randn(4, 6)
    (weight * mask * upstream).sum().backward()
    torch.testing.assert_close(weight.grad, upstream * mask)
    through = upstream * weight.detach() * scores.detach().sign()
    torch.testing.assert_close(scores.grad, through * mask.detach())


def test_scores_start_as_layers_do_and_are_seeded(uncut: Any) -> None:
    model = uncut("resnet10t")
    first, second, other = (Scores(model, seed=seed) for seed in (0, 0, 1))
    for one, same, unlike in zip(first.scores, second.scores, other.scores, strict=True):
        bound = 1 / math.sqrt(one[0].numel())  # PyTorch's own for a kernel of so many inputs
        assert 0.9 * bound < float(one.detach().abs().max()) <= bound
        assert torch.equal(one, same)
        assert not torch.equal(one, unlike)


def test_masks_suit_any_network(uncut: Any) -> None:
    model = copy.deepcopy(uncut("vit_tiny_patch16_224"))
    nested = NestedModel(model, (0.4, 1.0), method="masks")
    assert nested(images(2), 0.4).shape == (2, 16)


def test_errors(make: Any, uncut: Any) -> None:
    for capacities, words in (((0.5,), "lack 100%"), ((0.0, 1.0), "capacity 0.0 is no share")):
        with pytest.raises(PruningError, match=words):
            NestedModel(uncut("resnet10t"), capacities)
    with pytest.raises(PruningError, match="no method 'mask'"):
        NestedModel(uncut("resnet10t"), CAPACITIES, method="mask")
    for method in METHODS:  # statistics of a capacity that was not trained are nobody's
        with pytest.raises(PruningError, match="no trained capacity"):
            make(method).eval()(images(), 0.3)
    with pytest.raises(PruningError, match="no trained capacity"):
        make("switchable").train()(images(), 0.3)
    assert make("structured").train()(images(), 0.3).shape == (
        4,
        make("structured").dense.dimension,
    )
    with pytest.raises(PruningError, match=r"no normalisation layers for 30%: .* 100%, 50%, 20%"):
        make("switchable").extract(0.3)


@pytest.mark.parametrize(
    ("text", "share"), [("37%", 0.37), (" 20", 0.2), ("2.5", 0.025), ("100%", 1.0)]
)
def test_capacities_are_read_in_percent(text: Any, share: Any) -> None:
    assert parse_capacity(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "101%", "half", "nan", "-3"])
def test_other_capacities_are_refused(text: Any) -> None:
    with pytest.raises(PruningError, match=f"the capacity '{text}' is not understood"):
        parse_capacity(text)
