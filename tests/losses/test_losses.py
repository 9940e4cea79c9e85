"""Every loss against a naive loop written from its paper's formula, in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references import DIMENSION, softmax, unit
from torch import Tensor

from compat.errors import CompatError
from compat.losses import create_loss, list_losses, parse_loss, register_loss
from compat.targets import AlignmentTargets


@pytest.fixture
def targets() -> AlignmentTargets:
    gallery = unit(40, 0).float()
    return AlignmentTargets(
        vectors=torch.cat([gallery, unit(40, 1).float()]),
        gallery=gallery,
        labels=torch.arange(80) % 5,
    )


def value(config: object, targets: AlignmentTargets, query: Tensor, rows: Tensor) -> Tensor:
    loss = create_loss(config, targets).double()  # type: ignore[arg-type]
    return loss(query, targets.vectors[rows].double(), targets.batch(rows))


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def test_regression_is_the_mean_distance(targets: AlignmentTargets) -> None:
    rows = torch.tensor([3, 50, 7])
    query = unit(3, 2)
    goal = targets.vectors[rows].double()
    cosine = sum(1 - dot(q, g) for q, g in zip(query, goal, strict=True)) / 3
    squares = sum(dot(q - g, q - g) for q, g in zip(query, goal, strict=True)) / 3
    assert float(value("regression", targets, query, rows)) == pytest.approx(cosine, abs=1e-5)
    l2 = {"regression": {"distance": "l2"}}
    assert float(value(l2, targets, query, rows)) == pytest.approx(squares, abs=1e-5)


def test_csd_is_the_divergence_over_the_gallery_neighbours(targets: AlignmentTargets) -> None:
    rows = torch.tensor([0, 41, 79])
    query = unit(3, 3)
    k, t_g, t_q = 6, 0.05, 0.5
    expected = 0.0
    for q, row in zip(query, rows, strict=True):
        g = targets.vectors[row].double()
        order = sorted(targets.gallery.double(), key=lambda v: -dot(g, v))[:k]
        teacher = softmax([dot(g, v) / t_g for v in order])
        student = softmax([dot(q, v) / t_q for v in order])
        expected += kl(teacher, student) / 3
    config = {"csd": {"k": k, "gallery_temperature": t_g, "query_temperature": t_q}}
    assert float(value(config, targets, query, rows)) == pytest.approx(expected, abs=1e-5)


def test_csd_compares_within_the_batch_by_default(targets: AlignmentTargets) -> None:
    rows = torch.tensor([0, 41, 79, 6])
    query, goals = unit(4, 3), targets.vectors[rows].double()
    expected = 0.0
    for q, g in zip(query, goals, strict=True):
        teacher = softmax([dot(g, v) / 0.01 for v in goals])
        student = softmax([dot(q, v) for v in goals])
        expected += kl(teacher, student) / 4
    assert expected > 0.5
    for config in ("csd", {"csd": {"k": "batch"}}):
        assert float(value(config, targets, query, rows)) == pytest.approx(expected, abs=1e-5)
    assert float(value("csd", targets, query[:1], rows[:1])) == 0


def test_csd_takes_the_spread_of_the_gallery_for_its_temperature(
    targets: AlignmentTargets,
) -> None:
    rows, query = torch.tensor([0, 41, 79, 6]), unit(4, 3)
    vectors = targets.gallery.double().numpy()
    cosines = [a @ b for i, a in enumerate(vectors) for b in vectors[:i]]
    spread = float(np.std(cosines, ddof=1))
    assert targets.spread == pytest.approx(spread, rel=1e-4)
    figure, word = (
        value({"csd": {"gallery_temperature": t, "query_temperature": t}}, targets, query, rows)
        for t in (spread, "spread")
    )
    assert float(word) == pytest.approx(float(figure), rel=1e-4)
    with pytest.raises(CompatError, match="gallery_temperature is 'wide'; give a number above 0"):
        create_loss({"csd": {"gallery_temperature": "wide"}})


def test_ssp_is_the_divergence_over_the_centroids(targets: AlignmentTargets) -> None:
    rows = torch.tensor([5, 60])
    query = unit(2, 4)
    m, tau = 2, 0.1
    config = {"ssp": {"subspaces": m, "bits": 3, "temperature": tau, "iterations": 5}}
    centroids = targets.anchors(m, 3, 5, 0).double()
    expected = 0.0
    for q, row in zip(query, rows, strict=True):
        g = targets.vectors[row].double()
        for j in range(m):
            part = slice(j * DIMENSION // m, (j + 1) * DIMENSION // m)
            q_j, g_j = F.normalize(q[part], dim=0), F.normalize(g[part], dim=0)
            anchors = [F.normalize(c, dim=0) for c in centroids[j]]
            teacher = softmax([dot(g_j, c) / tau for c in anchors])
            student = softmax([dot(q_j, c) / tau for c in anchors])
            expected += kl(teacher, student) / (2 * m)
    assert float(value(config, targets, query, rows)) == pytest.approx(expected, abs=1e-5)


SMALL = {
    "regression": {},
    "csd": {"k": 6},
    "ssp": {"subspaces": 2, "bits": 3, "iterations": 2},
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_gradients_agree_with_finite_differences(name: str, targets: AlignmentTargets) -> None:
    rows = torch.tensor([1, 42])
    loss = create_loss({name: {"weight": 1.0, **SMALL[name]}}, targets).double()
    goal = targets.vectors[rows].double()

    def function(raw: Tensor) -> Tensor:
        return loss(F.normalize(raw, dim=1), goal, targets.batch(rows))

    raw = unit(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(function, raw)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_gallery_vector_itself_is_a_stationary_point(
    name: str, targets: AlignmentTargets
) -> None:
    options = dict(SMALL[name])
    if name == "csd":
        options["query_temperature"] = 0.01  # otherwise the two softmaxes differ by design
    rows = torch.arange(4)
    query = targets.vectors[rows].double().clone().requires_grad_()
    loss = create_loss({name: {"weight": 1.0, **options}}, targets).double()
    result = loss(F.normalize(query, dim=1), query.detach(), targets.batch(rows))
    assert result.item() == pytest.approx(0.0, abs=1e-5)
    (gradient,) = torch.autograd.grad(result, query)
    assert gradient.abs().max() < 1e-4


@pytest.mark.parametrize("name", sorted(SMALL))
def test_losses_survive_bfloat16(name: str, targets: AlignmentTargets) -> None:
    rows = torch.arange(16)
    query = unit(16, 6).float()
    loss = create_loss({name: {"weight": 1.0, **SMALL[name]}}, targets)
    exact = loss(query, targets.vectors[rows], targets.batch(rows))
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss(query, targets.vectors[rows], targets.batch(rows))
    assert torch.isfinite(rough)
    assert float(rough) == pytest.approx(float(exact), rel=0.05)


def test_a_weighted_sum_adds_up(targets: AlignmentTargets) -> None:
    rows = torch.tensor([1, 2])
    query = unit(2, 7)
    ssp = {"subspaces": 2, "bits": 3, "iterations": 2}
    together = value({"ssp": {"weight": 0.3, **ssp}, "regression": 2}, targets, query, rows)
    apart = 0.3 * value({"ssp": ssp}, targets, query, rows) + 2 * value(
        "regression", targets, query, rows
    )
    assert float(together) == pytest.approx(float(apart), abs=1e-6)


def test_a_users_loss_plugs_in_by_name(targets: AlignmentTargets) -> None:
    @register_loss("half", requires=("labels",))
    def half(query: Tensor, target: Tensor, batch: object, *, share: float = 0.5) -> Tensor:
        return share * (query - target).square().mean()

    assert "half" in list_losses()
    rows = torch.tensor([0, 1])
    query = unit(2, 8)
    expected = 0.25 * float((query - targets.vectors[rows]).square().mean())
    assert float(value({"half": {"share": 0.25}}, targets, query, rows)) == pytest.approx(expected)

    unlabelled = AlignmentTargets(targets.vectors, targets.gallery, torch.full((80,), -1))
    with pytest.raises(CompatError, match=r"'half' requires labels.*folder per class"):
        create_loss("half", unlabelled)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("spp", "did you mean 'ssp'"),
        ({}, "names no loss"),
        ({"csd": "much"}, "give a number"),
        ({"csd": {"temprature": 1}}, "does not take the options"),
        ({"csd": {"k": 41}}, "holds 40 vectors"),
        ({"csd": {"k": "all"}}, "k is 'all'; give a whole number, or 'batch'"),
        ({"ssp": {"subspaces": 3, "bits": 2}}, "not divisible"),
        ({"ssp": {"subspaces": 2, "bits": 8}}, "256 anchors"),
        ({"regression": {"distance": "l3"}}, "use 'cosine' or 'l2'"),
    ],
)
def test_wrong_configurations_say_what_to_do(
    config: object, sentence: str, targets: AlignmentTargets
) -> None:
    with pytest.raises(CompatError, match=sentence):
        create_loss(config, targets)  # type: ignore[arg-type]


def test_embeddings_of_another_dimension_are_refused(targets: AlignmentTargets) -> None:
    rows = torch.tensor([0, 1])
    with pytest.raises(CompatError, match=r"\(2, 4\).*\(2, 8\)"):
        value("regression", targets, unit(2, 9, dimension=4), rows)


def test_parse_loss_keeps_weights_and_options_apart() -> None:
    (term,) = parse_loss({"csd": {"weight": 2, "k": 5}})
    assert (term.name, term.weight, dict(term.options)) == ("csd", 2.0, {"k": 5})
