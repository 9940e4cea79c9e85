"""Gradients of several subnetworks towards shared weights, made into one."""

from collections.abc import Sequence

import torch
from torch import Tensor

_NOTHING_LEFT = 1e-3  # share of a gradient's length below which the rest is round-off


def integrate(gradients: Sequence[Tensor], *, power: float = 0.5) -> Tensor:
    """Conflict-aware integration of the gradients of one parameter.

    Sun et al., "Learning compatible multi-prize subnetworks for asymmetric retrieval", CVPR 2025.
    For every output kernel of a convolution, and for other parameters as a whole, a gradient g_i
    that conflicts with another, g_i · g_j < 0, loses its part along it:
    ĝ_i = g_i − (g_i · g_j / ‖g_j‖²) g_j. The results are summed with weights proportional to
    ((cos(ĝ_i, g_i) + 1) / 2)^power, which are normalised to a sum of 1, and the sum is multiplied
    by their number N + 1. So without conflicts this is the plain sum.

    Chosen here: several conflicts of one gradient are resolved one after another, in the order
    given and against the original gradients (as PCGrad does; the authors' code keeps the last one
    alone); the cosine is over the whole parameter, and 0 where nothing is left.

    Args:
        gradients: That of the dense network and those of N subnetworks, of one shape; axis 0 of
            kernels is the output.
        power: Exponent of the weights.
    """
    stacked = torch.stack(list(gradients))
    count = len(stacked)
    kernels = stacked.shape[1] if stacked.ndim > 3 else 1
    rows = stacked.reshape(count, kernels, -1)
    gram = torch.einsum("ikn,jkn->kij", rows, rows)
    in_order = [[j for j in range(count) if j != i] for i in range(count)]
    combined = _yielding(gram, in_order)
    with_own = torch.einsum("kij,kji->i", combined, gram)  # ĝ_i · g_i
    lengths = torch.einsum("kij,kjl,kil->i", combined, gram, combined).clamp(min=0).sqrt()
    own_lengths = torch.einsum("kii->i", gram).sqrt()
    turned = with_own / (lengths * own_lengths).clamp(min=1e-30)
    cosines = torch.where(lengths > _NOTHING_LEFT * own_lengths, turned, 0.0)
    weights = ((cosines + 1) / 2).clamp(min=0) ** power
    weights = weights / weights.sum() * count
    shares = torch.einsum("i,kij->kj", weights, combined)
    return torch.einsum("kj,jkn->kn", shares, rows).view_as(gradients[0])


def pcgrad(
    gradients: Sequence[Sequence[Tensor]], *, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Projecting conflicting gradients: the sum over tasks after each has yielded to the others.

    Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1: for each task
    in turn, and the others in random order, g_i loses its part along g_j if g_i · g_j < 0.
    Gradients of all parameters count as one vector.

    Args:
        gradients: By task, one tensor per parameter.
        generator: Of the random orders, on the CPU.

    Returns:
        One tensor per parameter.
    """
    count = len(gradients)
    stacked = [torch.stack(parts) for parts in zip(*gradients, strict=True)]
    flat = [rows.reshape(count, -1) for rows in stacked]
    gram = torch.stack([rows @ rows.T for rows in flat]).sum(dim=0)
    orders = [
        [j for j in torch.randperm(count, generator=generator).tolist() if j != i]
        for i in range(count)
    ]
    shares = _yielding(gram.unsqueeze(0), orders)[0].sum(dim=0)
    return [torch.tensordot(shares, rows, dims=1) for rows in stacked]


def _yielding(gram: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Let every gradient yield to the others, in coefficients: ĝ_i = Σ_j c_ij g_j.

    All that this needs of the gradients is their products, so they are read once and not for every
    pair.

    Args:
        gram: (k, m, m) products g_i · g_j of m gradients, for each of k kernels.
        orders: For each gradient the others, in the order in which it yields to them.

    Returns:
        (k, m, m) coefficients.
    """
    combined = torch.eye(len(orders), dtype=gram.dtype, device=gram.device).repeat(len(gram), 1, 1)
    for i, others in enumerate(orders):
        for j in others:
            product = (combined[:, i] * gram[:, :, j]).sum(dim=1)
            share = product / gram[:, j, j].clamp(min=1e-30)
            combined[:, i, j] -= torch.where(product < 0, share, 0.0)
    return combined
