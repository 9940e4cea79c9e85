"""Adaptive BN and adaptive projection: fit a slice or a cut to its gallery without training it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compat.predictors.maps import Moments, ridge_map
from nas.errors import StudyError
from searchspaces import QueryModel, recalibrate


@torch.no_grad()
def adapt(
    model: QueryModel,
    batches: Sequence[Tensor],
    targets: Tensor,
    *,
    keep_statistics: bool = False,
) -> None:
    """Re-estimate BatchNorm statistics and the projection from one pass over training images.

    Subnetworks share one projection, which suits none of them quite; but the targets of a
    projection are known, so the best one for a subnetwork's own features comes in closed form. With
    X the features (n, f), G the targets and XW + b the shared projection, it has the weight cW + D,
    where c fits it to G, and D is the ridge regression, with an intercept, of what is left on X.
    Its penalty is chosen by generalised cross-validation (`compat.predictors.maps.ridge_map`), so
    that few images hardly move W. The bias leads the mean of X to that of G. A projection without
    bias, of models of before, stays without. The result takes W's norm, which training afterwards
    is used to.

    Features are those of the pass that estimates the statistics: every batch is normalised by
    itself. A model without BatchNorm, or one that is to keep its statistics, has its projection
    fitted all the same.

    Args:
        model: The query model, changed in place and left in evaluation mode.
        batches: Images (B, 3, r, r) in [0, 1], together n.
        targets: (n, d) unit gallery vectors of these images, in the same order.
        keep_statistics: Whether BatchNorm statistics stay as they are.

    Raises:
        StudyError: The model's features are not finite, or all of them are zero.
    """
    linear = model.projection.linear
    seen: list[Tensor] = []
    with linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        if not keep_statistics:
            recalibrate(model, batches)
        if not seen:
            model.eval()
            for batch in batches:
                model(batch)
    features, vectors, shared = (
        each.double().cpu().numpy() for each in (torch.cat(seen), targets, linear.weight.T)
    )
    if not np.isfinite(features).all() or not features.any():
        raise StudyError(
            "A subnetwork's features are zero or not finite, so no projection can be fitted to "
            "them; train the supernet with a lower `lr`."
        )
    if linear.bias is None:
        weight, bias = _fitted(features, vectors, shared), None
    else:
        weight, bias = _fitted_affine(features, vectors, shared, linear.bias.double().cpu().numpy())
    stretch = np.linalg.norm(shared) / np.linalg.norm(weight)
    linear.weight.copy_(torch.from_numpy(stretch * weight.T))
    if bias is not None:
        linear.bias.copy_(torch.from_numpy(stretch * bias))


def _fitted_affine(
    features: np.ndarray, vectors: np.ndarray, shared: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The weight (f, d), and the bias (d,) that leads the features' mean to the vectors'."""
    start, end = features.mean(axis=0), vectors.mean(axis=0)
    weight = _fitted(features, vectors, shared, bias)
    return weight, end - start @ weight


def _fitted(
    features: np.ndarray, vectors: np.ndarray, shared: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """The shared weight, stretched, and the ridge regression of what it leaves; (f, d)."""
    found = features @ shared if bias is None else features @ shared + bias
    energy = np.vdot(found, found)
    scale = np.vdot(found, vectors) / energy if energy else 0.0  # zeros of a collapsed model
    left = vectors - scale * found
    if bias is not None:
        features, left = features - features.mean(axis=0), left - left.mean(axis=0)
    moments = Moments(
        count=len(features),
        mean=np.zeros(len(shared)),
        scale=np.ones(len(shared)),
        offset=np.zeros(len(shared.T)),
        scatter=features.T @ features,
        cross=features.T @ left,
        energy=float(np.vdot(left, left)),
    )
    return scale * shared + ridge_map(moments).weights
