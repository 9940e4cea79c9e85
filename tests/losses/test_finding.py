"""Which losses, trained by, lead queries to the gallery's vectors."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat.losses import create_loss
from compat.targets import AlignmentTargets


def mean_precision(queries: Tensor, gallery: Tensor, labels: Tensor) -> float:
    """Share of a query's 20 nearest that are of its class; the query itself is left out."""
    scores = (queries @ gallery.T).fill_diagonal_(-torch.inf)
    nearest = scores.topk(20, dim=1).indices
    return (labels[nearest] == labels[:, None]).double().mean().item()


def self_and_cross_test(config: object) -> tuple[float, float]:
    """Train a small query model from features in a space of their own; 8 classes, 16 dimensions."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(240) % 8
    centres = F.normalize(torch.randn(8, 16, generator=generator), dim=1)
    gallery = F.normalize(centres[labels] + 0.1 * torch.randn(240, 16, generator=generator), dim=1)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    features = gallery @ rotation + 0.05 * torch.randn(240, 16, generator=generator)

    targets = AlignmentTargets(gallery, gallery, labels)
    loss = create_loss(config, targets)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=3e-3)
    for _ in range(250):
        rows = torch.randperm(240, generator=generator)[:48]
        query = F.normalize(model(features[rows]), dim=1)
        optimizer.zero_grad()
        loss(query, gallery[rows], targets.batch(rows)).backward()
        optimizer.step()
    with torch.no_grad():
        query = F.normalize(model(features), dim=1)
    return mean_precision(query, query, labels), mean_precision(query, gallery, labels)


@pytest.mark.parametrize("name", ["rkd", "logit_kd"])
def test_relations_or_logits_alone_do_not_find_the_gallery(name: str) -> None:
    """As published: the self-test is high, the cross-test near chance (here 1/8)."""
    own, cross = self_and_cross_test(name)
    assert own > 0.9
    assert cross < 0.3


@pytest.mark.parametrize(
    "config", ["regression", "raml", "aml", {"csd": {"k": 120}}, {"rop": {"k": 60}}, "d3still"]
)
def test_losses_that_name_gallery_vectors_find_the_gallery(config: object) -> None:
    own, cross = self_and_cross_test(config)
    assert min(own, cross) > 0.9
