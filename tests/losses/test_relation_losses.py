"""The losses on embeddings, relations and rankings against naive loops, in float64."""

import math
from collections.abc import Callable

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
    huber,
    logistic,
    make_targets,
    prepared,
    softmax,
    unit,
)
from torch import Tensor

from compat.errors import CompatError
from compat.losses import create_loss
from compat.targets import AlignmentTargets


@pytest.fixture
def targets() -> AlignmentTargets:
    return make_targets()


def neighbour_scores(
    q: Vector, g: Vector, targets: AlignmentTargets, k: int
) -> tuple[Vector, Vector]:
    nearest = sorted(targets.gallery.tolist(), key=lambda v: -dot(g, v))[:k]
    return [dot(g, v) for v in nearest], [dot(q, v) for v in nearest]


def naive_raml(queries: list[Vector], goals: list[Vector], targets: AlignmentTargets) -> float:
    n = len(queries)
    total = sum((1 - dot(q, g)) ** 2 for q, g in zip(queries, goals, strict=True)) / n
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    for i, j in pairs:
        wanted = dot(goals[i], goals[j])
        total += 0.7482 * (dot(queries[i], goals[j]) - wanted) ** 2 / len(pairs)
        total += 0.6778 * (dot(queries[i], queries[j]) - wanted) ** 2 / len(pairs)
    return total


def naive_rkd(queries: list[Vector], goals: list[Vector], targets: AlignmentTargets) -> float:
    n = len(queries)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    triplets = [(i, j, k) for i, j in pairs for k in range(n) if k not in (i, j)]

    def scale(vectors: list[Vector]) -> float:
        return sum(distance(vectors[i], vectors[j]) for i, j in pairs) / len(pairs)

    def cosine(vectors: list[Vector], i: int, j: int, k: int) -> float:
        left = [a - b for a, b in zip(vectors[i], vectors[j], strict=True)]
        right = [a - b for a, b in zip(vectors[k], vectors[j], strict=True)]
        return dot(left, right) / math.sqrt(dot(left, left) * dot(right, right))

    of_q, of_g = scale(queries), scale(goals)
    lengths = [
        huber(distance(queries[i], queries[j]) / of_q - distance(goals[i], goals[j]) / of_g)
        for i, j in pairs
    ]
    angles = [huber(cosine(queries, *t) - cosine(goals, *t)) for t in triplets]
    return sum(lengths) / len(pairs) + 2 * sum(angles) / len(triplets)


def naive_rop(queries: list[Vector], goals: list[Vector], targets: AlignmentTargets) -> float:
    k, tau = 6, 0.1
    total = 0.0
    for q, g in zip(queries, goals, strict=True):
        s_g, s_q = neighbour_scores(q, g, targets, k)
        weights = softmax([0.2 * s for s in s_g])
        for i in range(k):
            for j in range(k):
                in_gallery = logistic((s_g[j] - s_g[i]) / 1e-6)
                in_query = logistic((s_q[j] - s_g[i]) / tau)
                total += (i + 1) * weights[i] * (in_gallery - in_query) ** 2 / k
    return total / len(queries)


def naive_d3still(queries: list[Vector], goals: list[Vector], targets: AlignmentTargets) -> float:
    k = 6
    n = len(queries)
    gaps, relations = 0.0, 0.0
    for q, g in zip(queries, goals, strict=True):
        s_g, s_q = neighbour_scores(q, g, targets, k)
        gaps += (s_g[0] - s_q[0]) ** 2
        hard = easy = 0.0
        for i in range(1, k):
            for j in range(1, k):
                of_g, of_q = s_g[j] - s_g[i], s_q[j] - s_q[i]
                error = ((of_q - of_g) / (0.1 + abs(of_g))) ** 2
                if of_g * of_q < 0:
                    hard += error
                else:
                    easy += error
        relations += (2 * math.sqrt(hard) + math.sqrt(easy)) / (k - 1) / n
    return 50 * math.sqrt(gaps) / n + relations


def naive_fitnet(queries: list[Vector], goals: list[Vector], targets: AlignmentTargets) -> float:
    squares = [distance(q, g) ** 2 for q, g in zip(queries, goals, strict=True)]
    return sum(squares) / 2 / len(queries)


NAIVE: dict[str, tuple[dict[str, object], Callable[..., float]]] = {
    "raml": ({}, naive_raml),
    "rkd": ({}, naive_rkd),
    "rop": ({"k": 6}, naive_rop),
    "d3still": ({"k": 6}, naive_d3still),
    "fitnet": ({}, naive_fitnet),
}


SMALL: dict[str, dict[str, object]] = {
    **{name: options for name, (options, _) in NAIVE.items()},
    "logit_kd": {"scale": 6.0, "temperature": 2.0},
    "aml": {"regression": 0.5, "pool": 25},
}


@pytest.mark.parametrize("name", sorted(NAIVE))
def test_the_loss_is_its_formula(name: str, targets: AlignmentTargets) -> None:
    options, naive = NAIVE[name]
    query = F.normalize(targets.vectors[ROWS].double() + 0.5 * unit(len(ROWS), 2), dim=1)
    expected = naive(query.tolist(), targets.vectors[ROWS].tolist(), targets)
    assert expected > 0.01
    assert call(prepared(name, targets, **options), targets, query).item() == pytest.approx(
        expected, abs=1e-5
    )


def test_d3still_meets_both_kinds_of_pairs(targets: AlignmentTargets) -> None:
    query = unit(len(ROWS), 3)
    parts = [
        call(prepared("d3still", targets, k=6, alpha=0, beta=beta, gamma=1 - beta), targets, query)
        for beta in (0, 1)
    ]
    assert min(parts) > 0.1


def test_logit_kd_is_the_divergence_of_the_class_probabilities(targets: AlignmentTargets) -> None:
    loss = prepared("logit_kd", targets, scale=6.0, temperature=2.0)
    own = F.normalize(loss.get_parameter("weight"), dim=1).tolist()
    means = []
    for number in range(CLASSES):
        members = targets.gallery[targets.labels[:IMAGES] == number].double()
        means.append(F.normalize(members.sum(0), dim=0).tolist())
    query = unit(len(ROWS), 4)
    expected = 0.0
    for q, g in zip(query.tolist(), targets.vectors[ROWS].tolist(), strict=True):
        teacher = softmax([6 * dot(g, w) / 2 for w in means])
        student = softmax([6 * dot(q, w) / 2 for w in own])
        divergence = [t * math.log(t / s) for t, s in zip(teacher, student, strict=True)]
        expected += 2**2 * sum(divergence) / len(ROWS)
    assert call(loss, targets, query).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_gradients_agree_with_finite_differences(name: str, targets: AlignmentTargets) -> None:
    loss = prepared(name, targets, **SMALL[name]).eval()
    parameters = tuple(loss.parameters())

    def function(raw: Tensor, *_: Tensor) -> Tensor:
        return call(loss, targets, F.normalize(raw, dim=1), ROWS[:4])

    start = F.normalize(targets.vectors[ROWS[:4]].double() + 0.5 * unit(4, 10), dim=1)
    assert torch.autograd.gradcheck(function, (start.requires_grad_(), *parameters))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("raml", {}),
        ("rkd", {}),
        ("fitnet", {}),
        ("d3still", {"k": 6}),
        ("rop", {"k": 6, "temperature": 1e-6}),
    ],
)
def test_the_gallery_vector_itself_costs_nothing(
    name: str, options: dict[str, object], targets: AlignmentTargets
) -> None:
    query = targets.vectors[ROWS].double().requires_grad_()
    result = call(prepared(name, targets, **options), targets, query)
    assert 0 <= result.item() < 1e-5
    (gradient,) = torch.autograd.grad(result, query)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [*sorted(SMALL), "csd"])
def test_losses_are_exact_under_autocast(name: str, targets: AlignmentTargets) -> None:
    loss = create_loss({name: SMALL.get(name, {"k": 6})}, targets).eval()
    query = unit(len(ROWS), 11).float()
    exact = loss(query, targets.vectors[ROWS], targets.batch(ROWS))
    with torch.autocast("cpu", torch.bfloat16):
        same = loss(query, targets.vectors[ROWS], targets.batch(ROWS))
        half = loss(query.bfloat16(), targets.vectors[ROWS], targets.batch(ROWS))
    assert same.dtype == half.dtype == torch.float32
    assert same.item() == exact.item()
    assert half.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize("name", [*sorted(SMALL), "csd"])
def test_a_batch_of_one_has_a_loss_and_slopes(name: str, targets: AlignmentTargets) -> None:
    query = unit(1, 12).requires_grad_()
    loss = prepared(name, targets, **SMALL.get(name, {"k": 6}))
    result = call(loss, targets, query, ROWS[:1])
    (gradient,) = torch.autograd.grad(result, query)
    assert torch.isfinite(gradient).all()
    if name == "rkd":  # one image has no relations
        assert result.item() == 0
    else:
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_batch_of_one_class_is_no_special_case(name: str, targets: AlignmentTargets) -> None:
    rows = (targets.labels == 2).nonzero().flatten()[:4]
    query = unit(4, 13).requires_grad_()
    result = call(prepared(name, targets, **SMALL[name]), targets, query, rows)
    (gradient,) = torch.autograd.grad(result, query)
    assert result.item() > 0
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", sorted({*SMALL, "csd"} - {"aml", "logit_kd"}))
def test_images_without_labels_are_trained_on(name: str, targets: AlignmentTargets) -> None:
    unlabelled = make_targets(torch.full((IMAGES,), -1))
    query = unit(len(ROWS), 14)
    options = SMALL.get(name, {"k": 6})
    value = call(prepared(name, unlabelled, **options), unlabelled, query)
    assert value.item() == call(prepared(name, targets, **options), targets, query).item()


@pytest.mark.parametrize("name", ["aml", "logit_kd"])
def test_losses_of_classes_ask_for_labels(name: str) -> None:
    with pytest.raises(CompatError, match=rf"'{name}' requires labels.*folder per class"):
        create_loss(name, make_targets(torch.full((IMAGES,), -1)))


def test_relations_of_images_at_one_point_have_finite_slopes(targets: AlignmentTargets) -> None:
    query = unit(4, 15)
    query[1:3] = query[0]
    for points in (query, query[:1].expand(4, -1)):
        leaf = points.clone().requires_grad_()
        rows = torch.tensor([0, 0, 5, 6])  # the gallery has two at one point, too
        (gradient,) = torch.autograd.grad(call(prepared("rkd", targets), targets, leaf, rows), leaf)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["fitnet", "logit_kd"])
def test_parameters_of_a_loss_get_slopes(name: str, targets: AlignmentTargets) -> None:
    loss = prepared(name, targets)
    call(loss, targets, unit(len(ROWS), 16)).backward()
    gradients = [parameter.grad for parameter in loss.parameters()]
    assert len(gradients) == 1
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"aml": {"margin": 0}}, "margin is 0; give a number above 0"),
        ({"aml": {"negatives": 0}}, "negatives is 0; give a whole number of at least 1"),
        ({"aml": {"pool": 3}}, "pool is 3; give a whole number of at least 5"),
        ({"aml": {"regression": -1}}, "regression is -1"),
        ({"raml": {"cross_weight": -1}}, "cross_weight is -1; give a number of at least 0"),
        ({"raml": {"lambda1": 1}}, "does not take the options"),
        ({"rkd": {"angle_weight": math.nan}}, "angle_weight is nan"),
        ({"logit_kd": {"temperature": "hot"}}, "temperature is 'hot'; give a number above 0"),
        ({"rop": {"k": 1}}, "k is 1; give a whole number of at least 2"),
        ({"rop": {"temperature": 0}}, "temperature is 0"),
        ({"rop": {"k": 41}}, "asks for 41 gallery neighbours.*holds 40 vectors"),
        ({"d3still": {"k": 2.5}}, "k is 2.5; give a whole number of at least 3"),
        ({"d3still": {"k": 41}}, "asks for 41 gallery neighbours.*holds 40 vectors"),
        ({"csd": {"k": 1}}, "k is 1; give a whole number of at least 2"),
        ({"csd": {"query_temperature": -1}}, "query_temperature is -1"),
        ({"fitnet": {"k": 1}}, "does not take the options"),
    ],
)
def test_nonsense_options_are_refused(
    config: dict[str, object], sentence: str, targets: AlignmentTargets
) -> None:
    with pytest.raises(CompatError, match=sentence):
        create_loss(config, targets)
