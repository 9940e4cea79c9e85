"""The gradients of a nested model's capacities, merged into one step."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.nested import NestedModel, integrate, norm_parameters, of_dense, pcgrad

Gradients = Literal["integrated", "pcgrad", "sum"]


class Merge:
    """Makes one gradient of those of all capacities, the dense network's first.

    With "masks" every score also gets a gradient of the dense network. With "integrated", kernels,
    biases and scores take the integrated gradient, what the loss has learnt takes the dense
    network's, and what belongs to some capacities only (private norms) the sum. Norms and the
    projection take the dense network's gradient with "masks", as PrunNet has it, and the sum where
    a capacity uses a part of their channels only: following the dense network, they leave the
    narrow ones without a way to fit. With PCGrad norms, projection and kernels count as one vector,
    and with "sum" everything is summed.
    """

    def __init__(self, nested: NestedModel, loss: nn.Module, rule: Gradients, seed: int) -> None:
        self._rule = rule
        self._seed = seed
        named = dict(nested.dense.named_parameters())
        private = norm_parameters(nested.dense) if nested.method == "switchable" else frozenset()
        outer = norm_parameters(nested.dense) | {
            name for name in named if name.startswith("projection.")
        }
        self._shared = [p for name, p in named.items() if name not in private]
        self._kernels = [
            p for name, p in named.items() if name not in private and name not in outer
        ]
        self._dense = [*loss.parameters()]
        self._scored: list[tuple[nn.Parameter, nn.Parameter]] = []
        if nested.scores is not None:
            self._scored = nested.scores.pairs(nested.dense)
            self._kernels += [score for _, score in self._scored]
            self._dense += [p for name, p in named.items() if name in outer]
        self._all = [*nested.parameters(), *loss.parameters()]

    def collect(self) -> dict[nn.Parameter, Tensor]:
        """Take the gradients of the loss that was sent backward last."""
        found = {p: p.grad for p in self._all if p.grad is not None}
        for parameter in found:
            parameter.grad = None
        return found

    def apply(self, gradients: Sequence[Mapping[nn.Parameter, Tensor]], step: int) -> None:
        """Set the gradient of every parameter."""
        dense = {
            score: of_dense(gradients[0][weight], weight, score)
            for weight, score in self._scored
            if weight in gradients[0]
        }
        gradients = [{**gradients[0], **dense}, *gradients[1:]]
        for parameter in self._all:
            parts = [g[parameter] for g in gradients if parameter in g]
            parameter.grad = torch.stack(parts).sum(dim=0) if parts else None
        if self._rule == "integrated":
            for parameter in self._kernels:
                parameter.grad = integrate([_of(g, parameter) for g in gradients])
            for parameter in self._dense:
                parameter.grad = gradients[0].get(parameter)
        elif self._rule == "pcgrad":
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
            tasks = [[_of(g, parameter) for parameter in self._shared] for g in gradients]
            merged = pcgrad(tasks, generator=generator)
            for parameter, gradient in zip(self._shared, merged, strict=True):
                parameter.grad = gradient


def _of(gradients: Mapping[nn.Parameter, Tensor], parameter: nn.Parameter) -> Tensor:
    found = gradients.get(parameter)
    return torch.zeros_like(parameter) if found is None else found
