"""The losses with a classifier: each against a naive loop written from its formula, in float64."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compat.errors import CompatError
from compat.losses import AdvBCT, CompatibilityLoss, create_loss, ndpp
from compat.losses.advbct import reverse_gradient
from compat.losses.margin import arcface
from compat.targets import AlignmentTargets

DIMENSION, CLASSES = 8, 5
NAMES = ["bct", "bct_lwf", "hvs", "lce", "advbct", "odpp", "ndpp"]
# Thresholds that act on the few, loosely spread classes of these tests.
OPTIONS: dict[str, dict[str, float]] = {
    "advbct": {"threshold": 0.4},
    "odpp": {"threshold": 0.1},
    "ndpp": {"neighbours": 3},
    "lce": {"transform": True},
}

Vector = list[float]


def unit(rows: int, seed: int, dimension: int = DIMENSION) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, dimension, generator=generator, dtype=torch.float64)
    return F.normalize(vectors, dim=1)


@pytest.fixture
def targets() -> AlignmentTargets:
    labels = torch.arange(80) % CLASSES
    vectors = F.normalize(unit(CLASSES, 0)[labels] + 0.8 * unit(80, 1), dim=1).float()
    return AlignmentTargets(vectors=vectors, gallery=vectors[:40], labels=labels)


def prepared(name: str, targets: AlignmentTargets, **options: float) -> CompatibilityLoss:
    """The loss in float64, its parameters away from their start, where terms may be zero."""
    config = {name: {"weight": 1.0, **OPTIONS.get(name, {}), **options}}
    loss = create_loss(config, targets).double()
    generator = torch.Generator().manual_seed(9)
    for parameter in loss.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.3 * noise
    return loss


# Formulas in plain Python, on lists of floats.


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def length(a: Vector) -> float:
    return math.sqrt(dot(a, a))


def normal(a: Vector) -> Vector:
    return [x / length(a) for x in a]


def minus(a: Vector, b: Vector) -> Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / length(a) / length(b)


def log_softmax(logits: Vector) -> Vector:
    total = math.log(sum(math.exp(v) for v in logits))
    return [v - total for v in logits]


def cross_entropy(q: Vector, weights: list[Vector], y: int, s: float, m: float = 0.0) -> float:
    logits = []
    for c, weight in enumerate(weights):
        angle = math.acos(cosine(q, weight))
        if c != y:
            logits.append(s * math.cos(angle))
        elif angle < math.pi - m:
            logits.append(s * math.cos(angle + m))
        else:
            logits.append(s * (math.cos(angle) - m * math.sin(m)))
    return -log_softmax(logits)[y]


def linear(layer: torch.nn.Linear, x: Vector) -> Vector:
    return [
        dot(row, x) + bias
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def relu(x: Vector) -> Vector:
    return [max(0.0, v) for v in x]


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
    loss = prepared("advbct", uneven, threshold=threshold)
    expected = naive_advbct(loss, uneven, query.tolist(), rows.tolist(), threshold)
    value = loss(query, uneven.vectors[rows].double(), uneven.batch(rows))
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_an_outlier_does_not_widen_the_boundary_of_its_class(uneven: AlignmentTargets) -> None:
    radii = dict(create_loss("advbct", uneven).named_buffers())["radii"]
    centre = uneven.gallery[uneven.labels == 0].mean(0)
    assert float((uneven.gallery[10] - centre).norm()) > 1.2
    assert float(radii[0]) < 0.8
    assert float(radii[CLASSES]) == 0


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


@pytest.mark.parametrize("name", ["odpp", "ndpp"])
def test_close_prototypes_are_perturbed_by_default(name: str) -> None:
    vectors = F.normalize(unit(1, 0) + 0.75 * unit(12, 1), dim=1).float()
    targets = AlignmentTargets(vectors, vectors, torch.arange(12))
    losses = [create_loss(each, targets) for each in (name, "bct")]
    query, rows = unit(12, 2).float(), torch.arange(12)
    optimiser = torch.optim.SGD(losses[0].parameters(), lr=1.0)
    for _ in range(3):
        optimiser.zero_grad()
        losses[0](query, vectors, targets.batch(rows)).backward()
        optimiser.step()
    losses[1].load_state_dict(losses[0].state_dict(), strict=False)
    perturbed, plain = (loss(query, vectors, targets.batch(rows)).item() for loss in losses)
    assert abs(perturbed - plain) > 0.01


@pytest.mark.parametrize("margin", [0.15, 0.5])
def test_more_angle_to_the_own_class_is_never_cheaper(margin: float) -> None:
    """The other class's weight is square to the plane that the embedding turns in."""
    angles = torch.linspace(0, math.pi, 200, dtype=torch.float64)
    query = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=1)
    weights = torch.eye(3, dtype=torch.float64)[[0, 2]]
    own = torch.zeros(1, dtype=torch.int64)
    losses = [arcface(q[None], weights, own, scale=8.0, margin=margin).item() for q in query]
    expected = [cross_entropy(q, weights.tolist(), 0, 8.0, margin) for q in query[1:-1].tolist()]
    assert losses[1:-1] == pytest.approx(expected, abs=1e-6)
    assert losses == sorted(losses)


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


def test_the_adversary_teaches_the_query_the_reverse_of_its_discriminator(
    targets: AlignmentTargets,
) -> None:
    rows = torch.arange(6)
    goal = targets.vectors[rows].double()
    query = unit(6, 3).requires_grad_()
    loss = prepared("advbct", targets, reversal=0.25)
    unheeded = prepared("advbct", targets, reversal=0.0)
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


def test_prototypes_step_away_from_their_neighbours() -> None:
    axes = torch.eye(DIMENSION, dtype=torch.float64)
    crowd = F.normalize(axes[0] + 0.4 * axes[1:4], dim=1)
    prototypes = torch.cat([crowd, axes[5:6], -axes[5:6]])
    moved = ndpp.spread(prototypes, 100, 0.4)
    before, after = (rows[:3] @ rows[:3].T for rows in (prototypes, moved))
    assert float(before[0, 1]) > 0.85
    assert float(after[0, 1]) < 0.8
    torch.testing.assert_close(moved[3:], prototypes[3:])  # nothing is near them
    torch.testing.assert_close(ndpp.spread(prototypes, 100, 0.0), prototypes)


def test_equal_prototypes_stay_where_they_are() -> None:
    pair = unit(1, 1).repeat(2, 1)
    torch.testing.assert_close(ndpp.spread(pair, 100, 0.4), pair)


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(2, 6),
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.floats(0, 1),
)
def test_moved_prototypes_have_length_one_and_stay_near(
    classes: int, dimension: int, seed: int, neighbours: int, step: float
) -> None:
    prototypes = unit(classes, seed, dimension)
    moved = ndpp.spread(prototypes, neighbours, step)
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(classes, dtype=torch.float64))
    # the mean of neighbours lies in the half of the unit ball around the prototype
    assert float((moved * prototypes).sum(1).min()) >= 1 / math.sqrt(1 + step**2) - 1e-9


def test_blocks_of_prototypes_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = unit(23, 3, 3)
    whole = ndpp.spread(prototypes, 10, 0.4)
    monkeypatch.setattr(ndpp, "_CELLS", 23 * 4)
    torch.testing.assert_close(ndpp.spread(prototypes, 10, 0.4), whole)


def test_perturbed_prototypes_learn_to_keep_apart() -> None:
    base = unit(3, 2).float()
    close = F.normalize(base[:1] + 0.15 * unit(4, 3).float(), dim=1)
    vectors = torch.cat([close, base[1:]])
    targets = AlignmentTargets(vectors, vectors, torch.arange(6))
    loss = create_loss({"odpp": {"weight": 1.0, "threshold": 0.9}}, targets)

    def closest() -> float:
        moved = F.normalize(vectors + loss.get_parameter("perturbation").detach(), dim=1)
        return float((moved @ moved.T - 2 * torch.eye(6)).max())

    before = closest()
    optimiser = torch.optim.AdamW(loss.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        loss(vectors, vectors, targets.batch(torch.arange(6))).backward()
        optimiser.step()
    assert before > 0.95
    assert closest() < 0.92
    torch.testing.assert_close(dict(loss.named_buffers())["gallery_weight"], vectors)
    resting = loss.get_parameter("perturbation")[4:]
    assert resting.abs().max() == 0  # far from all others


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
