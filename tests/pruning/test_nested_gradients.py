"""Gradient rules against naive loops, and their properties."""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from compat.losses import create_loss
from pruning.nested import NestedModel, UncertaintyWeights, integrate, pcgrad
from pruning.nested.merging import Merge
from searchspaces import QueryModel

SHAPES = [(4, 3, 2, 2), (5, 6), (7,), ()]

Vector = list[float]


def gradients(shape: tuple[int, ...], count: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def naive_projection(own: Vector, others: Sequence[Vector]) -> Vector:
    own = list(own)
    for other in others:
        product = sum(a * b for a, b in zip(own, other, strict=True))
        if product < 0:
            square = sum(b * b for b in other)
            own = [a - product / square * b for a, b in zip(own, other, strict=True)]
    return own


def naive_integration(grads: Sequence[Tensor], power: float) -> Tensor:
    """Kernel by kernel of convolutions; matrices and vectors are one piece."""
    kernels = grads[0].shape[0] if grads[0].ndim > 2 else 1
    flat = [g.reshape(kernels, -1).tolist() for g in grads]
    projected = [
        [
            naive_projection(flat[i][k], [flat[j][k] for j in range(len(flat)) if j != i])
            for k in range(kernels)
        ]
        for i in range(len(flat))
    ]
    weights = []
    for before, after in zip(flat, projected, strict=True):
        a, b = list(chain.from_iterable(before)), list(chain.from_iterable(after))
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        lengths = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
        cosine = dot / lengths if lengths > 1e-12 else 0.0
        weights.append(((cosine + 1) / 2) ** power)
    total = sum(weights)
    merged = torch.zeros(kernels, len(flat[0][0]), dtype=torch.float64)
    for weight, rows in zip(weights, projected, strict=True):
        merged += weight / total * len(flat) * torch.tensor(rows, dtype=torch.float64)
    return merged.view(grads[0].shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_integration_is_what_the_loop_says(shape: tuple[int, ...], power: float) -> None:
    grads = gradients(shape)
    expected = naive_integration(grads, power)
    torch.testing.assert_close(integrate(grads, power=power), expected, atol=1e-6, rtol=0)


def test_gradients_that_agree_are_summed() -> None:
    own = gradients((4, 3))[0]
    torch.testing.assert_close(integrate([own, 2 * own, own]), 4 * own)


def test_integration_removes_a_conflict_in_the_kernels_that_have_one() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    second = torch.tensor([[-1.0, 1.0], [1.0, 1.0]])
    merged = integrate([kernels[:, :, None, None] for kernels in (first, second)])[:, :, 0, 0]
    # kernel 0: (1/2, 1/2) and (0, 1), orthogonal to the opponent; kernel 1: unchanged
    cosines = torch.tensor([2.5 / (3 * 2.5) ** 0.5, 3 / (4 * 3) ** 0.5])
    weights = ((cosines + 1) / 2) ** 0.5
    weights = 2 * weights / weights.sum()
    expected = weights[0] * torch.tensor([[0.5, 0.5], [1, 1]])
    expected = expected + weights[1] * torch.tensor([[0.0, 1.0], [1, 1]])
    torch.testing.assert_close(merged, expected)


def test_a_capacity_without_a_part_in_a_kernel_changes_nothing_there() -> None:
    dense = gradients((4, 3))[0]
    assert torch.isfinite(integrate([dense, torch.zeros_like(dense)])).all()
    direction = integrate([dense, torch.zeros_like(dense)])
    torch.testing.assert_close(direction / direction.norm(), dense / dense.norm())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_scores_learn_as_in_prunnet(name: str, uncut: Callable[[str], QueryModel]) -> None:
    """Each subnetwork's gradient times its mask, the dense pass beside them, then integrated."""
    model = copy.deepcopy(uncut(name)).double()
    nested = NestedModel(model, (0.3, 0.6, 1.0), method="masks").double().train()
    assert nested.scores is not None
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    weights = {n: model.get_parameter(n).detach() for n in nested.scores.weights}
    scores = dict(zip(nested.scores.weights, nested.scores.scores, strict=True))
    merge = Merge(nested, create_loss("regression"), "integrated", 0)
    collected, expected = [], []
    for capacity in nested.capacities:
        nested(images, capacity)[:, capacity > 0.5].sum().backward()
        collected.append(merge.collect())
        masks = {}
        for n, score in scores.items():
            least = score.abs().flatten().sort(descending=True).values
            masks[n] = (score.abs() >= least[math.ceil(capacity * len(least) - 1e-9) - 1]).double()
        sparse = {n: (w * masks[n]).requires_grad_() for n, w in weights.items()}
        functional_call(model, sparse, (images,))[:, capacity > 0.5].sum().backward()
        expected.append(
            {
                n: w.grad * weights[n] * scores[n].sign() * masks[n]
                for n, w in sparse.items()
                if w.grad is not None
            }
        )
    with torch.no_grad():
        merge.apply(collected, 0)
    small = [n for n, w in weights.items() if w.numel() < 5000][:3]
    assert len(small) == 3
    for n in small:
        merged = naive_integration([each[n] for each in expected], 0.5)
        assert merged.abs().max() > 0
        torch.testing.assert_close(scores[n].grad, merged, atol=1e-9, rtol=1e-6)


def test_pcgrad_is_what_the_loop_says() -> None:
    tasks = [[*gradients((3, 2), 2, seed), *gradients((), 1, seed)] for seed in range(4)]
    flat = [torch.cat([tensor.flatten() for tensor in task]).tolist() for task in tasks]
    generator = torch.Generator().manual_seed(5)
    expected = torch.zeros(13, dtype=torch.float64)
    for i, own in enumerate(flat):
        order = torch.randperm(4, generator=generator).tolist()
        projected = naive_projection(own, [flat[j] for j in order if j != i])
        expected += torch.tensor(projected, dtype=torch.float64)
    merged = pcgrad(tasks, generator=torch.Generator().manual_seed(5))
    assert [tensor.shape for tensor in merged] == [(3, 2), (3, 2), ()]
    found = torch.cat([tensor.flatten() for tensor in merged])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_pcgrad_of_two_tasks_never_works_against_one(seed: int) -> None:
    tasks = [gradients((5,), 1, seed), gradients((5,), 1, seed + 1)]
    (first,), (second,) = tasks
    (merged,) = pcgrad(tasks)
    if first @ second >= 0:
        torch.testing.assert_close(merged, first + second)
    else:
        for one, other in ((first, second), (second, first)):
            yielded = one - (one @ other) / (other @ other) * other
            assert abs(float(yielded @ other)) < 1e-9
        assert float(merged @ first) >= -1e-9
        assert float(merged @ second) >= -1e-9


def test_uncertainty_weights_start_at_one_half_and_settle_at_the_losses() -> None:
    weights = UncertaintyWeights(2)
    losses = torch.tensor([0.2, 3.0])
    assert weights(losses[0], 0).item() == pytest.approx(0.1)
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        sum(weights(loss, i) for i, loss in enumerate(losses)).backward()
        optimizer.step()
    torch.testing.assert_close(weights.log_variances.exp(), losses, atol=1e-3, rtol=0)
