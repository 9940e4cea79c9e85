"""The closed-form start, what losses see, and what trainings keep of a network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from compat.losses import create_loss
from compat.targets import AlignmentTargets
from compat.tasks import TrainingSet
from compat.training import TrainingConfig, align
from nas.alignment.start import fit_projection
from nas.errors import StudyError
from searchspaces import QueryModel
from searchspaces.query_model import Projection

SIDE, FEATURES, DIMENSION = 8, 12, 5


class Backbone(nn.Module):
    """A convolution, a BatchNorm and a pooled vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, FEATURES, 3)
        self.norm = nn.BatchNorm2d(FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))


def query_model(*, norm: bool = False) -> QueryModel:
    torch.manual_seed(0)
    return QueryModel(Backbone(), Projection(FEATURES, DIMENSION, norm=norm), resolution=SIDE)


def training_set(count: int = 300, views: int = 2, offset: float = 2.0) -> TrainingSet:
    """Noise images whose gallery vectors lie in a cone and follow from the pixels."""
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8) for _ in range(views))
    flat = np.concatenate(pictures).reshape(count * views, -1) / 255 - 0.5
    vectors = torch.from_numpy(flat @ rng.normal(size=(flat.shape[1], DIMENSION)) / 4 + offset)
    unit = F.normalize(vectors.float(), dim=1)
    labels = torch.full((count * views,), -1)
    return TrainingSet(pictures, AlignmentTargets(unit, unit[:count], labels))


def images_of(data: TrainingSet) -> Tensor:
    pixels = np.concatenate(data.pictures)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


@torch.no_grad()
def mean_cosine(model: QueryModel, data: TrainingSet) -> float:
    return float((model.eval()(images_of(data)) * data.targets.vectors).sum(1).mean())


@pytest.mark.parametrize("norm", [False, True])
def test_the_start_points_where_a_ridge_regression_does(norm: bool) -> None:
    data, model = training_set(), query_model(norm=norm)
    fit_projection(model, data, seed=0)
    with torch.no_grad():
        features = model.pooled(images_of(data)).double().numpy()
        found = model(images_of(data)).numpy()
    standardised = (features - features.mean(0)) / features.std(0)
    vectors = data.targets.vectors.double().numpy()
    matches = []
    for penalty in np.logspace(-6, 3, 46) * len(vectors):
        expected = Ridge(alpha=penalty).fit(standardised, vectors).predict(standardised)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        matches.append(np.abs(found - expected).max())
    assert min(matches) < 1e-4


def test_the_start_keeps_the_norm_of_the_weights() -> None:
    data, model = training_set(), query_model()
    before = float(model.projection.linear.weight.detach().norm())
    fit_projection(model, data, seed=0)
    assert float(model.projection.linear.weight.detach().norm()) == pytest.approx(before, rel=1e-4)


def test_features_that_never_change_are_refused() -> None:
    model = query_model()
    nn.init.zeros_(model.backbone.conv.weight)
    with pytest.raises(StudyError, match="same for all"):
        fit_projection(model, training_set(), seed=0)


def test_centred_losses_see_vectors_from_the_mean_of_the_gallery() -> None:
    data = training_set()
    plain = data.targets
    rows = torch.arange(40)
    query = F.normalize(plain.vectors[rows] + 0.1 * torch.randn(40, DIMENSION), dim=1)
    loss = create_loss("regression", plain, centred=True)
    mean = plain.gallery.mean(0)
    expected = 1 - F.cosine_similarity(query - mean, plain.vectors[rows] - mean).mean()
    batch = plain.batch(rows)
    torch.testing.assert_close(loss(query, batch.vectors, batch), expected)
    # nothing to say apart of a cone: the plain loss is far smaller than the centred one
    before = create_loss("regression", plain)(query, plain.vectors[rows], plain.batch(rows))
    assert before < 0.5 * expected


def test_centring_goes_with_the_neighbours_and_prototypes() -> None:
    data = training_set()
    centred = data.targets.centred
    assert float(centred.gallery.mean(0).norm()) < float(data.targets.gallery.mean(0).norm()) / 4
    similar = centred.vectors @ centred.gallery.T
    torch.testing.assert_close(centred.neighbours(3), similar.topk(3, dim=1).indices)


def trained(model: QueryModel, data: TrainingSet, lr: float, **options: bool) -> dict[int, float]:
    loss = create_loss("regression", data.targets)

    def losses(images: Tensor, batch: object, step: int):  # noqa: ANN202
        yield loss(model(images), batch.vectors, batch)  # type: ignore[attr-defined]

    found = align(
        model,
        losses,
        data,
        TrainingConfig(epochs=2, batch=32, lr=lr, validate_every=1),
        loss=loss,
        seed=0,
        device=torch.device("cpu"),
        validate=lambda network: mean_cosine(network, data),  # type: ignore[arg-type]
        title="align",
        quiet=True,
        **options,
    )
    return found.history


def test_no_training_ends_below_its_start() -> None:
    data, model = training_set(), query_model()
    fit_projection(model, data, seed=0)
    before = mean_cosine(model, data)
    history = trained(model, data, lr=30.0)  # ruins any network
    assert history[0] == pytest.approx(before)
    assert max(history.values()) == history[0]
    assert mean_cosine(model, data) == pytest.approx(before)


def test_a_start_that_may_not_stay_does_not() -> None:
    data, model = training_set(), query_model()
    fit_projection(model, data, seed=0)
    before = mean_cosine(model, data)
    assert 0 not in trained(model, data, lr=30.0, from_start=False)
    assert mean_cosine(model, data) < before


@pytest.mark.parametrize("kept", [False, True])
def test_statistics_are_kept_where_they_should_be(kept: bool) -> None:
    data, model = training_set(), query_model()
    norm = model.backbone.norm
    before, weight = norm.running_mean.clone(), norm.weight.clone()
    trained(model, data, lr=1e-2, keep_statistics=kept, from_start=False)
    assert torch.equal(norm.running_mean, before) == kept
    assert not torch.equal(norm.weight, weight)
