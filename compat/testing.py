"""Checks for losses of one's own: what each compatibility loss of this package keeps to."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compat.errors import CompatError
from compat.losses import CompatibilityLoss, create_loss
from compat.targets import AlignmentTargets

_CLASSES, _PER_CLASS, _DIMENSION, _BATCH = 8, 40, 64, 16


def check_loss(config: str | Mapping[str, Any], *, seed: int = 0) -> None:
    """Try a registered loss on small random targets; about a second.

    It must give a finite float32 scalar for many images, one image and images of one class, a
    finite gradient for the query embeddings that is not zero, the same value under autocast and
    again by the same seed, and must refuse batches of wrong shape by a `CompatError`.

    Args:
        config: The loss as a study file names it, ``"mine"`` or ``{"mine": {"exponent": 3}}``.
        seed: Of the targets, the query embeddings and the loss's own parameters.

    Raises:
        AssertionError: The loss breaks one of these rules; the message says which.
        CompatError: There is no such loss, or it does not take the options.
    """
    targets = random_targets(seed)
    rows = torch.randperm(len(targets.vectors), generator=_generator(seed))[:_BATCH]
    query = _unit(len(rows), seed + 1)

    value = _value(_made(config, targets, seed), query, targets, rows)
    _check_value(value, "a batch of many classes")
    again = _value(_made(config, targets, seed), query, targets, rows)
    assert torch.equal(value, again), (
        f"two losses of one seed give {float(value)} and {float(again)}; draw what is random in "
        "prepare(), which is seeded"
    )
    for few, name in ((rows[:1], "one image"), (_of_one_class(targets), "images of one class")):
        loss = _made(config, targets, seed)
        _check_value(_value(loss, _unit(len(few), seed + 2), targets, few), name)
    _check_gradient(_made(config, targets, seed), query, targets, rows)
    _check_autocast(_made(config, targets, seed), query, targets, rows, value)
    _check_refusals(_made(config, targets, seed), query, targets, rows)


def random_targets(seed: int = 0) -> AlignmentTargets:
    """Return targets of 320 images in 8 classes, with one view each, in 64 dimensions."""
    centres = _unit(_CLASSES, seed)
    labels = torch.arange(_CLASSES).repeat_interleave(_PER_CLASS)
    images, views = (
        F.normalize(centres[labels] + 0.5 * _unit(len(labels), seed + each), dim=1)
        for each in (1, 2)
    )
    return AlignmentTargets(
        vectors=torch.cat([images, views]), gallery=images, labels=labels.repeat(2)
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _unit(rows: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, _DIMENSION, generator=_generator(seed)), dim=1)


def _made(
    config: str | Mapping[str, Any], targets: AlignmentTargets, seed: int
) -> CompatibilityLoss:
    return create_loss(config, targets, seed=seed)


def _value(
    loss: CompatibilityLoss, query: Tensor, targets: AlignmentTargets, rows: Tensor
) -> Tensor:
    return loss(query, targets.vectors[rows], targets.batch(rows))


def _of_one_class(targets: AlignmentTargets) -> Tensor:
    return torch.nonzero(targets.labels == 0).flatten()[:_BATCH]


def _check_value(value: Tensor, batch: str) -> None:
    assert value.shape == (), f"of {batch} the loss has shape {tuple(value.shape)}, not ()"
    assert value.dtype == torch.float32, f"of {batch} the loss is {value.dtype}, not float32"
    assert bool(torch.isfinite(value)), f"of {batch} the loss is {float(value)}"


def _check_gradient(
    loss: CompatibilityLoss, query: Tensor, targets: AlignmentTargets, rows: Tensor
) -> None:
    raw = query.clone().requires_grad_()
    value = _value(loss, F.normalize(raw, dim=1), targets, rows)
    assert value.requires_grad, "the loss does not depend on the query embeddings"
    (gradient,) = torch.autograd.grad(value, raw, allow_unused=True)
    assert gradient is not None, "the loss does not depend on the query embeddings"
    assert bool(torch.isfinite(gradient).all()), "the gradient holds NaN or infinity"
    assert bool(gradient.any()), "the gradient of the query embeddings is zero"


def _check_autocast(
    loss: CompatibilityLoss,
    query: Tensor,
    targets: AlignmentTargets,
    rows: Tensor,
    exact: Tensor,
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        value = _value(loss, query, targets, rows)
    assert torch.equal(value, exact), (
        f"under autocast the loss is {float(value)} and not {float(exact)}; leave "
        "CompatibilityLoss.__call__ as it is, which computes in float32"
    )


def _check_refusals(
    loss: CompatibilityLoss, query: Tensor, targets: AlignmentTargets, rows: Tensor
) -> None:
    goal, batch = targets.vectors[rows], targets.batch(rows)
    broken = query.clone()
    broken[0, 0] = torch.nan
    wrong = {
        "one query embedding too few": query[1:],
        "a dimension too few": query[:, 1:],
        "one dimension for all": query[:, 0],
        "a query embedding that is NaN": broken,
    }
    for name, given in wrong.items():
        try:
            loss(given, goal, batch)
        except CompatError:
            continue
        raise AssertionError(f"{name} is not refused by a CompatError")
