"""A learnt score per weight, and the weights of highest score as a sparse network."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from searchspaces import QueryModel
from searchspaces.support.seeding import seeded


class Scores(nn.Module):
    """One learnable score for every weight of the backbone's convolutions and linear layers.

    Sun et al., "Learning compatible multi-prize subnetworks for asymmetric retrieval" (PrunNet),
    CVPR 2025. Scores start from the Kaiming-uniform distribution of PyTorch's layers (a = √5).
    Biases, norms and the projection are always kept. What is left is unstructured: weights are
    zero, but no layer gets smaller, so no multiplication is saved on ordinary hardware.

    Args:
        model: The dense network.
        seed: Of the scores' start.
    """

    def __init__(self, model: QueryModel, *, seed: int = 0) -> None:
        super().__init__()
        self.weights = [
            f"backbone.{name}.weight"
            for name, module in model.backbone.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        self.scores = nn.ParameterList(
            torch.empty(model.get_parameter(w).shape) for w in self.weights
        )
        with seeded(seed):
            for score in self.scores:
                nn.init.kaiming_uniform_(score, a=math.sqrt(5))

    def masked(self, model: QueryModel, share: float) -> dict[str, Tensor]:
        """Weights of the sparse network by name: in each layer only the given share is not zero.

        Differentiable: a kept weight gets the gradient of its product and its score that of the
        mask; of the others, neither gets any (`top_share`).
        """
        return {
            name: model.get_parameter(name) * top_share(score, share)
            for name, score in zip(self.weights, self.scores, strict=True)
        }

    def pairs(self, model: QueryModel) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Every masked weight of the dense network with its score."""
        return list(zip(map(model.get_parameter, self.weights), self.scores, strict=True))


def of_dense(gradient: Tensor, weight: Tensor, score: Tensor) -> Tensor:
    """Gradient of a score towards the dense network, whose mask is all ones.

    Args:
        gradient: That of the dense network's weight, of one shape with it and its score.
        weight: The weight.
        score: Its score.
    """
    return gradient * weight * score.sign()


def top_share(scores: Tensor, share: float) -> Tensor:
    """A mask, float of the scores' shape: 1 for the ⌈share · n⌉ scores of largest magnitude.

    Its gradient goes straight through to the scores (Ramanujan et al., "What's hidden in a randomly
    weighted neural network?", CVPR 2020, section 3), as in PrunNet's code to those kept alone.
    """
    mask: Tensor = _TopShare.apply(scores.abs(), share)
    return mask


class _TopShare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, magnitudes: Tensor, share: float) -> Tensor:
        flat = magnitudes.flatten()
        kept = flat.topk(max(1, math.ceil(share * len(flat) - 1e-9)), sorted=False).indices
        mask = torch.zeros_like(flat).index_fill_(0, kept, 1.0).view_as(magnitudes)
        ctx.save_for_backward(mask)
        return mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradients[0] * mask, None


def sparsity(weights: Sequence[Tensor]) -> float:
    """Share of zeros among all elements."""
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)
