"""AdvBCT against a loop over the batch: boundaries, and the adversary."""

import math

import pytest
import torch
import torch.nn.functional as F
from references import (
    CLASSES,
    DIMENSION,
    Vector,
    away_from_start,
    cross_entropy,
    dot,
    length,
    linear,
    log_softmax,
    minus,
    relu,
    unit,
)

from compat.losses import CompatibilityLoss, create_loss
from compat.losses.advbct import reverse_gradient
from compat.targets import AlignmentTargets


def prepared(targets: AlignmentTargets, **options: float) -> CompatibilityLoss:
    config = {"advbct": {"threshold": 0.4, **options}}
    return away_from_start(create_loss(config, targets))


def naive_advbct(
    loss: CompatibilityLoss,
    targets: AlignmentTargets,
    queries: list[Vector],
    rows: list[int],
    threshold: float,
) -> float:
    """The whole batch at once: discriminator and hinge look at all of it."""
    gallery, labels = targets.gallery.double().tolist(), targets.labels.tolist()
    elasticity = loss.get_parameter("elasticity").tolist()
    weights = loss.get_parameter("query_weight").tolist()
    own, outside = 0.0, []
    for q, row in zip(queries, rows, strict=True):
        y = labels[row]
        own += cross_entropy(q, weights, y, math.sqrt(DIMENSION)) / len(rows)
        members = [g for g, label in zip(gallery, labels, strict=False) if label == y]
        if len(members) == 1:
            continue
        centre = [sum(column) / len(members) for column in zip(*members, strict=True)]
        reach = sorted(length(minus(g, centre)) for g in members)
        if len(reach) >= 4:
            low, high = reach[len(reach) // 4], reach[3 * len(reach) // 4]
            reach = [r for r in reach if r <= high + 1.5 * (high - low)]
        elastic = 1 / (1 + math.exp(-elasticity[y]))
        boundary = reach[-1] + elastic * (threshold - reach[-1])
        if length(minus(q, centre)) > boundary:
            outside.append(length(minus(q, centre)) - boundary)

    first, norm, last = (loss.get_submodule(f"discriminator.{i}") for i in (0, 1, 3))

    def told(vectors: list[Vector], side: int) -> float:
        hidden = [[dot(row, v) for row in first.weight.tolist()] for v in vectors]  # type: ignore[operator,union-attr]
        columns = []
        for column, slope, shift in zip(
            zip(*hidden, strict=True),
            norm.weight.tolist(),  # type: ignore[operator,union-attr]
            norm.bias.tolist(),  # type: ignore[operator,union-attr]
            strict=True,
        ):
            mean = sum(column) / len(column)
            variance = sum((h - mean) ** 2 for h in column) / len(column)
            columns.append(
                [slope * (h - mean) / math.sqrt(variance + 1e-5) + shift for h in column]
            )
        inner = [relu(list(h)) for h in zip(*columns, strict=True)]
        return -sum(log_softmax(linear(last, h))[side] for h in inner) / len(inner)  # type: ignore[arg-type]

    goals = targets.vectors[rows].double().tolist()
    hinge = sum(outside) / len(outside) if outside else 0.0
    return own + hinge + told(queries, 0) + told(goals, 1)


@pytest.fixture
def uneven() -> AlignmentTargets:
    """Five classes of eight images, of which one has an outlier, and one class of one image."""
    labels = torch.cat([torch.arange(40) % CLASSES, torch.tensor([CLASSES])])
    gallery = F.normalize(unit(CLASSES + 1, 0)[labels] + 0.4 * unit(41, 1), dim=1).float()
    gallery[10] = -gallery[5]
    return AlignmentTargets(gallery, gallery, labels)


@pytest.mark.parametrize("threshold", [0.4, 0.0, 1.0])
def test_advbct_is_its_formula(threshold: float, uneven: AlignmentTargets) -> None:
    rows = torch.tensor([5, 0, 1, 40, 7, 3])
    query = F.normalize(uneven.vectors[rows].double() + 0.9 * unit(6, 2), dim=1)
    loss = prepared(uneven, threshold=threshold)
    expected = naive_advbct(loss, uneven, query.tolist(), rows.tolist(), threshold)
    value = loss(query, uneven.vectors[rows].double(), uneven.batch(rows))
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_an_outlier_does_not_widen_the_boundary_of_its_class(uneven: AlignmentTargets) -> None:
    radii = dict(create_loss("advbct", uneven).named_buffers())["radii"]
    centre = uneven.gallery[uneven.labels == 0].mean(0)
    assert float((uneven.gallery[10] - centre).norm()) > 1.2
    assert float(radii[0]) < 0.8
    assert float(radii[CLASSES]) == 0


def test_the_adversary_teaches_the_query_the_reverse_of_its_discriminator(
    targets: AlignmentTargets,
) -> None:
    rows = torch.arange(6)
    goal = targets.vectors[rows].double()
    query = unit(6, 3).requires_grad_()
    loss = prepared(targets, reversal=0.25)
    unheeded = prepared(targets, reversal=0.0)
    discriminator = loss.get_submodule("discriminator")
    parameters = list(discriminator.parameters())
    sides = torch.zeros(6, dtype=torch.int64)
    plain = F.cross_entropy(discriminator(query), sides)
    plain = plain + F.cross_entropy(discriminator(goal), sides + 1)
    by_query, *by_parameters = torch.autograd.grad(plain, [query, *parameters])

    whole = loss(query, goal, targets.batch(rows))
    rest = unheeded(query, goal, targets.batch(rows))
    assert torch.equal(whole, rest)
    got_query, *got_parameters = torch.autograd.grad(whole, [query, *parameters])
    (rest_query,) = torch.autograd.grad(rest, query)
    torch.testing.assert_close(got_query - rest_query, -0.25 * by_query)
    torch.testing.assert_close(got_parameters, by_parameters)


def test_reversing_changes_the_gradient_alone() -> None:
    inputs = torch.tensor([1.0, -2.0], requires_grad=True)
    outputs = reverse_gradient(inputs, 0.5)
    assert torch.equal(outputs, inputs)
    (outputs * torch.tensor([3.0, 5.0])).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [-1.5, -2.5]
