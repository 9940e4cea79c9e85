"""AFF against a loop, towards a gallery that is there and trained jointly with it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compat.errors import CompatError
from compat.losses import create_loss
from compat.losses.aff import AFF
from compat.targets import AlignmentTargets

WIDTH, CLASSES = 6, 4
S, M = 32.0, 0.2


def unit(rows: int, seed: int, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


@pytest.fixture
def fixed() -> AlignmentTargets:
    labels = torch.arange(16) % CLASSES
    vectors = unit(16, 1)
    return AlignmentTargets(vectors, vectors[:8], labels, classifier=3 * unit(CLASSES, 2))


@pytest.fixture
def joint(fixed: AlignmentTargets) -> AlignmentTargets:
    features = (unit(16, 3, 5), unit(16, 4, 9))
    return AlignmentTargets(fixed.vectors, fixed.gallery, fixed.labels, features=features)


def naive_arcface(vectors: Tensor, weights: Tensor, labels: list[int]) -> float:
    total = 0.0
    for vector, own in zip(vectors.tolist(), labels, strict=True):
        logits = []
        for j, weight in enumerate(weights.tolist()):
            length = math.sqrt(sum(v * v for v in vector) * sum(w * w for w in weight))
            angle = math.acos(sum(v * w for v, w in zip(vector, weight, strict=True)) / length)
            logits.append(S * math.cos(angle + (M if j == own else 0.0)))
        top = max(logits)
        total += top + math.log(sum(math.exp(x - top) for x in logits)) - logits[own]
    return total / len(labels)


def test_towards_a_gallery_it_is_arcface_to_its_classifier(fixed: AlignmentTargets) -> None:
    loss = create_loss("aff", fixed)
    rows = torch.tensor([0, 5, 10])
    found = loss(unit(3, 5), fixed.vectors[rows], fixed.batch(rows))
    assert fixed.classifier is not None
    expected = naive_arcface(unit(3, 5), fixed.classifier, fixed.labels[rows].tolist())
    assert found.item() == pytest.approx(expected, abs=1e-5)
    assert not list(loss.parameters())


def test_jointly_it_is_both_sides(joint: AlignmentTargets) -> None:
    loss = create_loss("aff", joint).double().eval()
    assert isinstance(loss, AFF)
    assert loss.mixed_weight is not None
    loss.query_weight = unit(CLASSES, 6)
    rows = torch.tensor([0, 5, 10])
    labels = joint.labels[rows].tolist()
    found = loss(unit(3, 7), unit(3, 8), joint.batch(rows))
    mixed = naive_arcface(unit(3, 8), loss.mixed_weight, labels)
    expected = mixed + naive_arcface(unit(3, 7), loss.query_weight, labels)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_the_query_classifier_follows_by_momentum(joint: AlignmentTargets) -> None:
    loss = create_loss({"aff": {"momentum": 0.75}}, joint)
    assert isinstance(loss, AFF)
    assert loss.mixed_weight is not None
    start = loss.query_weight.clone()
    torch.testing.assert_close(start, loss.mixed_weight.detach())
    batch = joint.batch(torch.arange(4))
    expected = start
    for step in range(3):
        with torch.no_grad():
            loss.mixed_weight.add_(1.0 + step)
        value = loss(unit(4, 1).float(), unit(4, 2).float(), batch)
        expected = 0.75 * expected + 0.25 * loss.mixed_weight.detach()
        torch.testing.assert_close(loss.query_weight, expected)
        value.backward()
    loss.eval()
    loss(unit(4, 1).float(), unit(4, 2).float(), batch)
    torch.testing.assert_close(loss.query_weight, expected)
    assert "query_weight" in loss.state_dict()  # a resumed training goes on with it


def test_gradients(fixed: AlignmentTargets, joint: AlignmentTargets) -> None:
    for targets in (fixed, joint):
        loss = create_loss("aff", targets).double().eval()
        batch = targets.batch(torch.arange(4))
        inputs = (unit(4, 1).requires_grad_(), unit(4, 2).requires_grad_())
        assert torch.autograd.gradcheck(
            lambda q, g, loss=loss, batch=batch: loss(q, g, batch), inputs
        )


def test_the_query_moves_no_classifier(joint: AlignmentTargets) -> None:
    loss = create_loss("aff", joint)
    assert isinstance(loss, AFF)
    batch = joint.batch(torch.arange(4))
    assert [name for name, _ in loss.named_parameters()] == ["mixed_weight"]
    gradients = []
    for seed in (1, 9):
        loss.zero_grad()
        loss(unit(4, seed).float(), unit(4, 2).float(), batch).backward()
        assert loss.mixed_weight is not None
        gradients.append(loss.mixed_weight.grad.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_errors(fixed: AlignmentTargets) -> None:
    with pytest.raises(CompatError, match="loss option momentum is 1"):
        create_loss({"aff": {"momentum": 1}}, fixed)
    unlabelled = AlignmentTargets(fixed.vectors, fixed.gallery, fixed.labels * 0 - 1)
    with pytest.raises(CompatError, match="'aff' requires labels"):
        create_loss("aff", unlabelled)
