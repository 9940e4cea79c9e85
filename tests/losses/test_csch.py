"""CSCH against a loop over images and classes, and what it asks of the gallery."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compat.errors import CompatError
from compat.losses import create_loss
from compat.targets import AlignmentTargets

BITS, CLASSES = 8, 5


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, BITS, generator=generator, dtype=torch.float64), dim=1)


def codes(rows: int, seed: int) -> Tensor:
    return torch.where(unit(rows, seed) < 0, -1.0, 1.0).double() / math.sqrt(BITS)


@pytest.fixture
def targets() -> AlignmentTargets:
    labels = torch.arange(20) % CLASSES
    centres = codes(CLASSES, 0)
    flips = torch.ones(20, BITS, dtype=torch.float64)
    flips[torch.arange(20), torch.arange(20) % BITS] = -1
    vectors = centres[labels] * flips
    return AlignmentTargets(vectors, vectors[:10], labels, classifier=centres * math.sqrt(BITS))


def naive(
    query: Tensor, target: Tensor, labels: list[int], centres: Tensor, gamma: float, *, both: bool
) -> float:
    def classify(vector: list[float], own: int) -> float:
        logits = []
        for j, centre in enumerate(centres.tolist()):
            length = math.sqrt(sum(v * v for v in vector) * sum(c * c for c in centre))
            cosine = sum(v * c for v, c in zip(vector, centre, strict=True)) / length
            logits.append(8.0 * (cosine - (0.2 if j == own else 0.0)))
        return math.log(sum(math.exp(x) for x in logits)) - logits[own]

    total = 0.0
    for q, g, own in zip(query.tolist(), target.tolist(), labels, strict=True):
        total += classify(q, own) + (classify(g, own) if both else 0.0)
        bits = [(math.sqrt(BITS) * (a - b)) ** 2 for a, b in zip(q, g, strict=True)]
        total += gamma * sum(bits) / BITS
    return total / len(labels)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 10.0])
def test_is_the_formula(targets: AlignmentTargets, both: bool, gamma: float) -> None:
    loss = create_loss({"csch": {"consistency": gamma}}, targets)
    rows = torch.tensor([3, 0, 7, 12])
    query = unit(4, 5)
    target = targets.vectors[rows].clone().requires_grad_(both)
    value = loss(query, target, targets.batch(rows))
    centres = targets.gallery_classifier()
    expected = naive(
        query, targets.vectors[rows], targets.labels[rows].tolist(), centres, gamma, both=both
    )
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_gradients(targets: AlignmentTargets) -> None:
    loss = create_loss("csch", targets)
    batch = targets.batch(torch.arange(4))
    query = unit(4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: loss(q, targets.vectors[:4], batch), (query,))


def test_consistency_does_not_move_the_gallery_side(targets: AlignmentTargets) -> None:
    batch = targets.batch(torch.arange(4))
    gradients = []
    for gamma in (0.0, 10.0):
        loss = create_loss({"csch": {"consistency": gamma}}, targets)
        target = unit(4, 7).requires_grad_()
        loss(unit(4, 8), target, batch).backward()
        gradients.append(target.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_without_a_classifier_the_centres_are_the_majority_of_each_bit(
    targets: AlignmentTargets,
) -> None:
    plain = AlignmentTargets(targets.vectors, targets.gallery, targets.labels)
    query, batch = unit(4, 9), targets.batch(torch.arange(4))
    centres = torch.stack(
        [targets.gallery[targets.labels[:10] == c].sum(0) for c in range(CLASSES)]
    )
    signed = torch.where(centres < 0, -1.0, 1.0).double()
    expected = naive(
        query, targets.vectors[:4], targets.labels[:4].tolist(), signed, 10.0, both=False
    )
    found = create_loss("csch", plain)(query, targets.vectors[:4], batch)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_is_smallest_at_the_codes(targets: AlignmentTargets) -> None:
    loss = create_loss("csch", targets)
    rows = torch.arange(10)
    best = loss(targets.vectors[rows], targets.vectors[rows], targets.batch(rows))
    assert best < loss(unit(10, 1), targets.vectors[rows], targets.batch(rows))


def test_in_bfloat16_and_with_a_batch_of_one(targets: AlignmentTargets) -> None:
    loss = create_loss("csch", targets)
    batch = targets.batch(torch.arange(1))
    fine = loss(unit(1, 2), targets.vectors[:1], batch)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = loss(unit(1, 2).bfloat16(), targets.vectors[:1].float(), batch)
    assert coarse.dtype == torch.float32
    assert coarse.item() == pytest.approx(fine.item(), rel=0.02)


def test_errors(targets: AlignmentTargets) -> None:
    unlabelled = AlignmentTargets(targets.vectors, targets.gallery, targets.labels * 0 - 1)
    with pytest.raises(CompatError, match="'csch' requires labels"):
        create_loss("csch", unlabelled)
    with pytest.raises(CompatError, match="loss option scale is 0"):
        create_loss({"csch": {"scale": 0}}, targets)
