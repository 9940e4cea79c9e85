"""The training loop: what it trains, and that a killed training ends like an unbroken one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.errors import CompatError
from compat.losses import CompatibilityLoss, create_loss
from compat.targets import AlignmentTargets
from compat.tasks.training_set import TrainingSet
from compat.training import Fitted, TrainingConfig, align
from searchspaces import QueryModel, timm_query_model

CONFIG = TrainingConfig(epochs=3, batch=8, validate_every=1)
LOSS = {"bct": 1.0, "regression": 1.0}


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    vectors = F.normalize(torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    return TrainingSet((pictures,), AlignmentTargets(vectors, vectors, torch.arange(24) % 4))


def train(data: TrainingSet, **options: object) -> tuple[Fitted, QueryModel, CompatibilityLoss]:
    torch.manual_seed(0)
    model = timm_query_model("test_resnet", 6, resolution=32, pretrained=False)
    loss = create_loss(LOSS, data.targets, seed=0)

    def losses(images: Any, batch: Any, step: Any) -> Any:
        yield loss(model(F.dropout(images, 0.1)), batch.vectors, batch)

    settings = {"validate": None, "checkpoint": None} | options
    fitted = align(
        model,
        losses,
        data,
        CONFIG,
        loss=loss,
        seed=0,
        device=torch.device("cpu"),
        title="test",
        quiet=True,
        **settings,
    )
    return fitted, model, loss


def test_parameters_of_the_loss_are_trained_along(data: TrainingSet) -> None:
    before = dict(create_loss(LOSS, data.targets, seed=0).named_parameters())
    _, _, loss = train(data)
    after = dict(loss.named_parameters())
    assert after
    assert all(not torch.equal(before[name], after[name]) for name in after)


def test_a_killed_training_ends_like_an_unbroken_one(data: TrainingSet, tmp_path: Path) -> None:
    """Weights of model and loss alike; the score is the number of validations so far."""

    def scores(fails_at: int | None) -> Any:
        calls = 0

        def validate(model: nn.Module) -> float:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise KeyboardInterrupt
            return float(next(model.parameters()).detach().square().sum())

        return validate

    _, model, loss = train(data, validate=scores(None))
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(data, validate=scores(2), checkpoint=checkpoint)
    _, continued, its_loss = train(data, validate=scores(None), checkpoint=checkpoint)

    def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

    assert same(model.state_dict(), continued.state_dict())
    assert same(loss.state_dict(), its_loss.state_dict())


def test_a_query_model_that_gives_nan_is_named(data: TrainingSet) -> None:
    loss = create_loss("regression", data.targets)
    query = torch.full((2, 6), torch.nan)
    with pytest.raises(CompatError, match=r"2 of 2 query embeddings.*lower the learning rate"):
        loss(query, data.targets.vectors[:2], data.targets.batch(torch.arange(2)))
    with pytest.raises(CompatError, match="batch is empty"):
        loss(query[:0], data.targets.vectors[:0], data.targets.batch(torch.arange(0)))
