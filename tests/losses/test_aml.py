"""AML against a loop over gallery and steps."""

import pytest
import torch
import torch.nn.functional as F
from references import (
    CLASSES,
    IMAGES,
    ROWS,
    Vector,
    call,
    distance,
    dot,
    make_targets,
    prepared,
    unit,
)

from compat.targets import AlignmentTargets


def naive_aml(
    queries: list[Vector],
    rows: list[int],
    targets: AlignmentTargets,
    *,
    step: int,
    negatives: int = 5,
    regression: float = 0.0,
) -> float:
    gallery, labels = targets.gallery.tolist(), targets.labels.tolist()
    total = 0.0
    for q, row in zip(queries, rows, strict=True):
        own = row % IMAGES
        others = [i for i in range(IMAGES) if labels[i] == labels[row] and i != own]
        later = [i for i in others if i > own] + [i for i in others if i < own]
        positive = gallery[later[step % len(later)]] if later else gallery[own]
        total += 0.5 * distance(q, positive) ** 2
        nearest: dict[int, float] = {}
        for i in range(IMAGES):
            if labels[i] != labels[row]:
                d = distance(q, gallery[i])
                nearest[labels[i]] = min(d, nearest.get(labels[i], d))
        foreign = sorted(nearest.values())
        total += 0.5 * sum(max(0.0, 0.7 - d) ** 2 for d in foreign[:negatives])
        total += regression * (1 - dot(q, targets.vectors[row].tolist()))
    return total / len(queries)


@pytest.mark.parametrize("negatives", [3, 20])
@pytest.mark.parametrize("regression", [0.0, 0.5])
def test_aml_is_its_formula_step_after_step(regression: float, negatives: int) -> None:
    gallery = F.normalize(unit(IMAGES, 0) + 2 * unit(1, 9), dim=1).float()  # crowded: many hinges
    labels = torch.arange(IMAGES) * 7 % CLASSES
    labels[3] = CLASSES  # a class of one image
    targets = AlignmentTargets(gallery.repeat(2, 1), gallery, labels.repeat(2))
    rows = torch.tensor([3, 43, 0, 41, 79, 7])
    query = F.normalize(targets.vectors[rows].double() + 0.3 * unit(6, 5), dim=1)
    loss = prepared("aml", targets, regression=regression, negatives=negatives)
    values = [call(loss, targets, query, rows).item() for _ in range(3)]
    expected = [
        naive_aml(
            query.tolist(),
            rows.tolist(),
            targets,
            step=step,
            negatives=negatives,
            regression=regression,
        )
        for step in range(3)
    ]
    assert values == pytest.approx(expected, abs=1e-5)
    assert len({round(v, 6) for v in values}) == 3  # the positives change


def test_the_pool_of_aml_comes_round_to_the_whole_gallery() -> None:
    targets = make_targets(torch.arange(IMAGES) // 2)  # of a class, two images or none in a pool
    loss = prepared("aml", targets, negatives=10, pool=10, margin=2.0)
    query = unit(len(ROWS), 6)
    labels = targets.labels[ROWS]
    seen: list[set[int]] = [set() for _ in ROWS]
    for _ in range(IMAGES // 10):
        rows, found = loss._negatives(query, targets.batch(ROWS))  # type: ignore[operator]
        for anchor, (chosen, valid) in enumerate(zip(rows, found, strict=True)):
            classes = targets.labels[chosen[valid]]
            assert (classes != labels[anchor]).all()
            assert len(classes.unique()) == len(classes)
            seen[anchor] |= set(classes.tolist())
        call(loss, targets, query)
    for label, classes in zip(labels.tolist(), seen, strict=True):
        assert classes == set(range(IMAGES // 2)) - {label}


def test_aml_goes_on_where_a_checkpoint_left_it() -> None:
    targets, query = make_targets(), unit(len(ROWS), 7)
    first = prepared("aml", targets, pool=12)
    call(first, targets, query)
    second = prepared("aml", targets, pool=12)
    second.load_state_dict(first.state_dict())
    assert call(first, targets, query).item() == call(second, targets, query).item()
    second.eval()
    assert call(second, targets, query).item() == call(second, targets, query).item()


def test_aml_without_other_classes_only_attracts() -> None:
    targets = make_targets(torch.zeros(IMAGES, dtype=torch.int64))
    query = unit(2, 8)
    rows = torch.tensor([5, 47])
    loss = prepared("aml", targets)
    expected = (distance(query[0], targets.gallery[6]) ** 2) / 4
    expected += (distance(query[1], targets.gallery[8]) ** 2) / 4
    assert call(loss, targets, query, rows).item() == pytest.approx(expected, abs=1e-5)
