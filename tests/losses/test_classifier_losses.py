"""The losses with a classifier: each against a naive loop written from its formula, in float64."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from references import (
    CLASSES,
    DIMENSION,
    Vector,
    away_from_start,
    cosine,
    cross_entropy,
    length,
    linear,
    log_softmax,
    minus,
    normal,
    relu,
    unit,
)
from torch import Tensor

from compat.errors import CompatError
from compat.losses import AdvBCT, CompatibilityLoss, create_loss
from compat.targets import AlignmentTargets

NAMES = ["bct", "bct_lwf", "hvs", "lce", "advbct", "odpp", "ndpp"]


# Thresholds that act on the few, loosely spread classes of these tests.
OPTIONS: dict[str, dict[str, float]] = {
    "advbct": {"threshold": 0.4},
    "odpp": {"threshold": 0.1},
    "ndpp": {"neighbours": 3},
    "lce": {"transform": True},
}


def prepared(name: str, targets: AlignmentTargets, **options: float) -> CompatibilityLoss:
    config = {name: {"weight": 1.0, **OPTIONS.get(name, {}), **options}}
    return away_from_start(create_loss(config, targets))


class Naive:
    """The formulas for one image: embedding q, gallery vector g, class y."""

    def __init__(self, loss: CompatibilityLoss, targets: AlignmentTargets) -> None:
        self.loss = loss
        self.s = math.sqrt(DIMENSION)
        self.w_q: list[Vector] = loss.get_parameter("query_weight").tolist()
        groups: list[list[Vector]] = [[] for _ in range(CLASSES)]
        rows = targets.gallery.double().tolist()
        for row, label in zip(rows, targets.labels.tolist(), strict=False):
            groups[label].append(row)
        self.means = [normal([sum(column) for column in zip(*g, strict=True)]) for g in groups]

    def bct(self, q: Vector, g: Vector, y: int) -> float:
        return cross_entropy(q, self.w_q, y, self.s) + cross_entropy(q, self.means, y, self.s)

    def bct_lwf(self, q: Vector, g: Vector, y: int) -> float:
        teacher = log_softmax([self.s / 2 * cosine(g, w) for w in self.means])
        student = log_softmax([self.s / 2 * cosine(q, w) for w in self.means])
        kl = sum(math.exp(a) * (a - b) for a, b in zip(teacher, student, strict=True))
        return cross_entropy(q, self.w_q, y, self.s) + kl

    def hvs(self, q: Vector, g: Vector, y: int) -> float:
        return sum(cross_entropy(q, w, y, self.s, m=0.15) for w in (self.w_q, self.means))

    def lce(self, q: Vector, g: Vector, y: int) -> float:
        def t(x: Vector) -> Vector:
            inner = relu(linear(self.loss.get_submodule("down"), x))  # type: ignore[arg-type]
            step = linear(self.loss.get_submodule("up"), inner)  # type: ignore[arg-type]
            return [a + b for a, b in zip(x, step, strict=True)]

        gap = length(minus(normal(t(normal(self.w_q[y]))), self.means[y]))
        own = cross_entropy(q, self.w_q, y, self.s, m=0.15)
        return own + 0.5 * cross_entropy(t(q), self.means, y, self.s, m=0.15) + 10 * gap

    def towards(self, q: Vector, prototype: Vector, y: int) -> float:
        """BCT, its own class's prototype another one."""
        prototypes = [prototype if c == y else p for c, p in enumerate(self.means)]
        return sum(cross_entropy(q, w, y, self.s) for w in (self.w_q, prototypes))

    def odpp(self, q: Vector, g: Vector, y: int) -> float:
        delta = self.loss.get_parameter("perturbation").tolist()
        moved = [
            normal([a + b for a, b in zip(p, shift, strict=True)])
            for p, shift in zip(self.means, delta, strict=True)
        ]
        others = [c for c in range(CLASSES) if c != y]
        within = sum(max(0.0, cosine(moved[y], moved[c]) - 0.1) for c in others) / len(others)
        across = sum(max(0.0, cosine(moved[y], self.w_q[c]) - 0.1) for c in others) / len(others)
        return self.towards(q, moved[y], y) + within + across

    def ndpp(self, q: Vector, g: Vector, y: int) -> float:
        p = self.means[y]
        others = [other for c, other in enumerate(self.means) if c != y]
        nearest = sorted(others, key=lambda other: -cosine(p, other))[:3]
        weights = [max(0.0, cosine(p, other)) for other in nearest]
        moved = list(p)
        for other, weight in zip(nearest, weights, strict=True):
            if weight > 0:
                for k in range(DIMENSION):
                    moved[k] += 0.4 * weight / sum(weights) * (p[k] - other[k])
        return self.towards(q, normal(moved), y)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "advbct"])
def test_a_loss_is_its_formula(name: str, targets: AlignmentTargets) -> None:
    rows = torch.tensor([3, 50, 7, 8, 61, 22, 9])
    query = unit(len(rows), 2)
    loss = prepared(name, targets)
    naive = getattr(Naive(loss, targets), name)
    each = [
        naive(q, targets.vectors[row].double().tolist(), int(targets.labels[row]))
        for q, row in zip(query.tolist(), rows.tolist(), strict=True)
    ]
    value = loss(query, targets.vectors[rows].double(), targets.batch(rows))
    assert value.item() == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_the_perturbations_act_in_these_tests(targets: AlignmentTargets) -> None:
    naive = Naive(prepared("bct", targets), targets)
    angles = [cosine(a, b) for a in naive.means for b in naive.means if a is not b]
    assert max(angles) > 0.2 > 0.1 > min(angles)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str, targets: AlignmentTargets) -> None:
    loss = prepared(name, targets)
    if isinstance(loss, AdvBCT):
        loss.reversal = -1.0  # twice reversed is not reversed
    rows = torch.tensor([1, 42, 8])
    goal = targets.vectors[rows].double()
    weights = loss.get_parameter("query_weight")
    if name == "odpp":  # W_q also decides, without a gradient, where prototypes are crowded
        weights.requires_grad_(False)

    def function(raw: Tensor, *_: Tensor) -> Tensor:
        return loss(F.normalize(raw, dim=1), goal, targets.batch(rows))

    inputs = (unit(3, 5).requires_grad_(), weights)
    assert torch.autograd.gradcheck(function, inputs)


def test_the_boundaries_and_the_transformation_are_trained(targets: AlignmentTargets) -> None:
    for name, parameter in (("advbct", "elasticity"), ("lce", "up.weight")):
        loss = prepared(name, targets)
        rows = torch.arange(10)
        query, goal = unit(10, 5), targets.vectors[rows].double()

        def function(
            _: Tensor, loss: Any = loss, rows: Any = rows, query: Any = query, goal: Any = goal
        ) -> Tensor:
            return loss(query, goal, targets.batch(rows))

        assert torch.autograd.gradcheck(function, loss.get_parameter(parameter))


@pytest.mark.parametrize("name", NAMES)
def test_only_parameters_get_gradients_and_all_of_them(
    name: str, targets: AlignmentTargets
) -> None:
    loss = prepared(name, targets)
    rows = torch.arange(20)
    loss(unit(20, 4), targets.vectors[rows].double(), targets.batch(rows)).backward()
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    frozen = dict(loss.named_buffers())["gallery_weight"]
    assert not frozen.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_exact_under_bfloat16(
    name: str, dtype: torch.dtype, targets: AlignmentTargets
) -> None:
    rows = torch.arange(16)
    query, goal = unit(16, 6).to(dtype), targets.vectors[rows].to(dtype)
    loss = prepared(name, targets).float()
    exact = loss(query.float(), goal.float(), targets.batch(rows))
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(query, goal, targets.batch(rows))
    assert under_autocast.dtype == torch.float32
    assert under_autocast.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(
    name: str, targets: AlignmentTargets, tmp_path: Path
) -> None:
    def steps(loss: CompatibilityLoss) -> list[float]:
        optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
        values = []
        for start in (0, 10, 20):
            rows = torch.arange(start, start + 10)
            optimiser.zero_grad()
            value = loss(unit(10, start).float(), targets.vectors[rows], targets.batch(rows))
            value.backward()
            optimiser.step()
            values.append(value.item())
        return values

    config = {name: {"weight": 1.0, **OPTIONS.get(name, {})}}
    first = create_loss(config, targets, seed=1)
    steps(first)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    elsewhere = AlignmentTargets(unit(80, 5).float(), unit(40, 5).float(), targets.labels)
    resumed = create_loss(config, elsewhere, seed=2)  # whatever it starts from is replaced
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert steps(resumed) == steps(first)


def test_lce_has_no_transformation_unless_asked_for(targets: AlignmentTargets) -> None:
    names = [name for name, _ in create_loss("lce", targets).named_parameters()]
    assert names == ["query_weight"]


def test_the_seed_decides_the_query_classifier(targets: AlignmentTargets) -> None:
    same, again, other = (
        create_loss("bct", targets, seed=seed).get_parameter("query_weight") for seed in (3, 3, 4)
    )
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (torch.arange(12) % 3, torch.tensor([4])),  # a batch of one
        (torch.arange(12) % 3, torch.tensor([0, 3, 6])),  # a batch of one class
        (torch.zeros(12, dtype=torch.int64), torch.arange(12)),  # a training set of one class
        (torch.arange(12), torch.arange(12)),  # classes of one image
    ],
)
def test_small_batches_and_classes_are_fine(name: str, labels: Tensor, rows: Tensor) -> None:
    vectors = unit(12, 8).float()
    targets = AlignmentTargets(vectors, vectors, labels)
    loss = create_loss(name, targets)
    for start in (unit(12, 9).float(), vectors):  # at random, and at the gallery vectors
        query = start[rows].clone().requires_grad_()
        value = loss(query, vectors[rows], targets.batch(rows))
        value.backward()
        assert torch.isfinite(value)
        assert query.grad is not None
        for gradient in [query.grad, *(p.grad for p in loss.parameters() if p.grad is not None)]:
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_images_are_refused_before_training(
    name: str, targets: AlignmentTargets
) -> None:
    labels = targets.labels.clone()
    labels[17] = -1
    unlabelled = AlignmentTargets(targets.vectors, targets.gallery, labels)
    with pytest.raises(CompatError, match=rf"'{name}' requires labels.*folder per class"):
        create_loss(name, unlabelled)


@pytest.mark.parametrize("name", NAMES)
def test_the_gallery_models_own_classifier_comes_first(
    name: str, targets: AlignmentTargets
) -> None:
    own = AlignmentTargets(
        targets.vectors, targets.gallery, targets.labels, 3 * unit(CLASSES, 7).float()
    )
    weights = dict(create_loss(name, own).named_buffers())["gallery_weight"]
    expected = own.gallery_classifier()
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"bct": {"scale": 0}}, "scale is 0; give a number above 0"),
        ({"bct": {"scale": "big"}}, "scale is 'big'; give a number above 0"),
        ({"bct": {"scale": math.nan}}, "scale is nan"),
        ({"bct": {"scale": math.inf}}, "scale is inf"),
        ({"bct": {"margin": 0.1}}, "does not take the options"),
        ({"bct_lwf": {"temperature": -1}}, "temperature is -1; give a number above 0"),
        ({"hvs": {"margin": -0.1}}, "margin is -0.1; give a number of at least 0 and below"),
        ({"hvs": {"margin": True}}, "margin is True"),
        ({"lce": {"boundary": -1}}, "boundary is -1"),
        ({"lce": {"alignment": -1}}, "alignment is -1"),
        ({"advbct": {"threshold": 2}}, "threshold is 2"),
        ({"advbct": {"reversal": -1}}, "reversal is -1"),
        ({"odpp": {"threshold": 1}}, "threshold is 1; give a number above -1 and below 1"),
        ({"ndpp": {"neighbours": 0}}, "neighbours is 0; give a whole number of at least 1"),
        ({"ndpp": {"step": -1}}, "step is -1; give a number of at least 0"),
    ],
)
def test_options_without_sense_are_refused(
    config: dict[str, object], sentence: str, targets: AlignmentTargets
) -> None:
    with pytest.raises(CompatError, match=sentence):
        create_loss(config, targets)


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in NAMES), ("lce", {"transform": True})]
)
def test_a_linear_query_learns_to_find_unseen_classes_in_the_gallery(
    name: str, options: dict[str, bool]
) -> None:
    """Gallery vectors by class; the query sees a noisy rotation of them and learns a matrix."""
    dimension, classes, images = 16, 60, 10
    labels = torch.arange(classes * images) % classes
    gallery = F.normalize(unit(classes, 0, 16)[labels] + 0.5 * unit(len(labels), 1, 16), dim=1)
    rotation = torch.linalg.qr(unit(16, 2, 16))[0]
    pictures = (gallery @ rotation + 0.02 * unit(len(labels), 3, 16)).float()
    gallery = gallery.float()
    seen = labels < 50
    targets = AlignmentTargets(gallery[seen], gallery[seen], labels[seen])
    config = {name: {"weight": 1.0, "scale": 16.0, **options}}
    loss = create_loss(config, targets)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        query = torch.nn.Linear(dimension, dimension, bias=False)

    def cross_test() -> float:
        """Share of the unseen images whose nearest other gallery vector is of their class."""
        unseen = ~seen
        similar = query(pictures[unseen]) @ gallery[unseen].T
        nearest = similar.fill_diagonal_(-math.inf).argmax(1)
        return float((labels[unseen][nearest] == labels[unseen]).float().mean())

    with torch.no_grad():
        start = cross_test()
    optimiser = torch.optim.AdamW([*query.parameters(), *loss.parameters()], lr=0.02)
    for step in range(80):
        rows = torch.randperm(500, generator=torch.Generator().manual_seed(step))[:100]
        embedded = F.normalize(query(pictures[seen][rows]), dim=1)
        optimiser.zero_grad()
        loss(embedded, gallery[seen][rows], targets.batch(rows)).backward()
        optimiser.step()
    with torch.no_grad():
        assert start < 0.2  # chance is 0.1
        assert cross_test() > 0.5
