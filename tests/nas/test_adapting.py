"""Adaptive projection against least squares."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.alignment.adaptation import adapt
from nas.errors import StudyError
from searchspaces import QueryModel
from searchspaces.projection import Projection

SIDE, FEATURES, DIMENSION = 4, 6, 5


class Flat(nn.Module):
    """Pixels as they are, the first few of them; with a BatchNorm where asked for."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(images.flatten(1)[:, :FEATURES])


def query_model(norm: bool = False, bias: bool = True) -> QueryModel:
    torch.manual_seed(0)
    model = QueryModel(Flat(norm), Projection(FEATURES, DIMENSION), resolution=SIDE)
    if not bias:
        model.projection.be_linear()
    return model


def images(count: int, batches: int = 1) -> list[Tensor]:
    drawn = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return list(drawn.tensor_split(batches))


def towards(features: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """A linear map, and the unit vectors near which it leads features."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(DIMENSION, FEATURES, generator=generator)
    vectors = features @ weight.T
    vectors += noise * torch.randn(vectors.shape, generator=generator)
    return weight, F.normalize(vectors, dim=1)


def loss(model: QueryModel, batches: list[Tensor], targets: Tensor) -> float:
    with torch.no_grad():
        queries = torch.cat([model(batch) for batch in batches])
    return float((1 - (queries * targets).sum(1)).mean())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_many_images_lead_to_the_least_squares_projection(norm: bool, bias: bool) -> None:
    model, batches = query_model(norm, bias), images(2000)
    model.train()
    with torch.no_grad():
        features = model.pooled(batches[0])
        model.backbone.norm = type(model.backbone.norm)(FEATURES)
    _, targets = towards(features, noise=0.1)
    adapt(model, batches, targets)
    ones = np.ones((len(features), int(bias)))
    known = np.concatenate([features.double().numpy(), ones], axis=1)
    expected, *_ = np.linalg.lstsq(known, targets.double().numpy())
    linear = model.projection.linear
    found = linear.weight.detach().numpy().T
    if bias:
        found = np.concatenate([found, linear.bias.detach().numpy()[None]])
    scale = np.linalg.norm(found) / np.linalg.norm(expected)
    np.testing.assert_allclose(found, scale * expected, rtol=0, atol=2e-3 * np.abs(found).max())
    assert not model.training


def test_a_few_images_hardly_move_the_shared_projection() -> None:
    """Half as many images as features, whose targets are noise: any map fits them by heart."""
    model, batches = query_model(), images(FEATURES // 2)
    before = model.projection.linear.weight.clone()
    targets = F.normalize(torch.randn(len(batches[0]), DIMENSION), dim=1)
    exact, *_ = np.linalg.lstsq(model.pooled(batches[0]).numpy(), targets.numpy())
    adapt(model, batches, targets)
    after = model.projection.linear.weight.detach()

    def turned(weight: Tensor) -> float:
        return float(F.cosine_similarity(weight.flatten(), before.detach().flatten(), dim=0))

    assert turned(after) > turned(torch.from_numpy(exact.T))


def test_the_norm_of_the_weights_stays() -> None:
    model, batches = query_model(), images(300, batches=3)
    before = model.projection.linear.weight.norm()
    _, targets = towards(torch.cat([model.pooled(batch) for batch in batches]))
    adapt(model, batches, targets)
    torch.testing.assert_close(model.projection.linear.weight.norm(), before)


def test_new_images_come_nearer_to_their_gallery_vectors() -> None:
    model, batches = query_model(), images(400, batches=4)
    old, new = batches[:2], batches[2:]
    _, targets = towards(torch.cat([model.pooled(batch) for batch in batches]), noise=0.2)
    before = loss(model, new, targets[200:])
    adapt(model, old, targets[:200])
    assert loss(model, new, targets[200:]) < 0.5 * before


def test_features_to_which_nothing_can_be_fitted_are_refused() -> None:
    model, batches = query_model(), images(20)
    before = model.projection.linear.weight.clone()
    batches[0][3, 0, 0, 0] = torch.inf
    with pytest.raises(StudyError, match="not finite"):
        adapt(model, batches, torch.ones(20, DIMENSION))
    grey = torch.full((20, 3, SIDE, SIDE), 0.5)  # normalised: zero
    with pytest.raises(StudyError, match="zero or"):
        adapt(model, [grey], torch.ones(20, DIMENSION))
    torch.testing.assert_close(model.projection.linear.weight, before)
