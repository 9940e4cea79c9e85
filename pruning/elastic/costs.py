"""Multiply-accumulates of a slice by formula: products of the lengths of its tensors' axes."""

import copy
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations_with_replacement
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.elastic.form import BACKBONE, Form
from pruning.families import forget
from pruning.nested import kept, narrow, tensors_of
from searchspaces import QueryModel, macs_by_layer

Axis = tuple[str, int]
"""A tensor's name and one of its axes."""

Formula = tuple[tuple[Axis, ...], ...]
"""A sum of products of lengths of axes."""

PROJECTION = "projection.linear"
_PROBES = 3


@dataclass(frozen=True, eq=False)
class Costs:
    """What fvcore counts of any slice, without building it.

    A convolution, a linear map or a norm costs its positions times the elements of its weight. What
    has no weight (pooling, products of attention) costs a constant times a length, a product or a
    sum of two lengths nearby. Which formula it is shows in three slices that are counted at the
    start; the constants are counted once for every resolution.

    Attributes:
        form: What can be taken from the backbone.
        resolution: Side in pixels at which formulas are looked for.
    """

    form: Form
    resolution: int

    def macs(
        self,
        widths: Sequence[float],
        left_out: Collection[str],
        *,
        resolution: int,
        dimension: int,
    ) -> int | None:
        """Count a slice; None where some module's cost follows no formula known here.

        Args:
            widths: Share of its units that every group keeps.
            left_out: Blocks of the timm network that are left out.
            resolution: Side of its input in pixels.
            dimension: Number of dimensions of the gallery space.
        """
        if self._formulas is None:
            return None
        gone = tuple(f"{BACKBONE}{name}." for name in left_out)
        lengths = self._lengths(widths)
        costs = {
            name: price * _value(self._formulas[name], lengths)
            for name, price in self._prices(resolution).items()
            if not f"{name}.".startswith(gone)
        }
        costs[PROJECTION] *= dimension
        return int(sum(costs.values()))

    def _prices(self, resolution: int) -> dict[str, int | Fraction]:
        """What one of a formula's products costs in every module."""
        assert self._formulas is not None
        if resolution not in self._priced:
            whole = self._whole(resolution)
            exact = {
                name: Fraction(whole[name], _value(formula, self._axes))
                for name, formula in self._formulas.items()
            }
            self._priced[resolution] = {
                name: int(price) if price.denominator == 1 else price
                for name, price in exact.items()
            }
        return self._priced[resolution]

    @cached_property
    def _priced(self) -> dict[int, dict[str, int | Fraction]]:
        return {}

    def _whole(self, resolution: int) -> dict[str, int]:
        return _by_module(self.form.whole, resolution)

    @cached_property
    def _axes(self) -> dict[Axis, int]:
        """Lengths of all axes of the whole network's tensors."""
        state = self.form.whole.state_dict()
        return {(name, axis): n for name, t in state.items() for axis, n in enumerate(t.shape)}

    @cached_property
    def _reached(self) -> list[tuple[Axis, int, NDArray[np.int64]]]:
        """Axes with a group that reaches them: how many channels its first 0, 1, ... units have."""
        reached = []
        for index, group in enumerate(self.form.groups):
            for member in group.members:
                for axis in tensors_of(member):
                    units = member.unit_of[: self._axes[axis]]
                    counts = np.bincount(units[units >= 0], minlength=group.units)
                    reached.append((axis, index, np.append(0, counts.cumsum())))
        return reached

    def _lengths(self, widths: Sequence[float]) -> dict[Axis, int]:
        counts = [kept(group, width) for group, width in zip(self.form.groups, widths, strict=True)]
        lengths = dict(self._axes)
        for axis, index, channels in self._reached:
            lengths[axis] -= int(channels[-1] - channels[counts[index]])
        return lengths

    @cached_property
    def _formulas(self) -> dict[str, Formula] | None:
        whole = self._whole(self.resolution)
        rng = random.Random(0)
        probes = []
        for _ in range(_PROBES):
            widths = [rng.uniform(0.2, 0.95) for _ in self.form.groups]
            slice_ = narrow(self.form.whole, self.form.groups, widths)
            probes.append((self._lengths(widths), _by_module(slice_, self.resolution)))

        def fits(name: str, formula: Formula) -> bool:
            base = _value(formula, self._axes)
            return base > 0 and all(
                counted.get(name, 0) * base == whole[name] * _value(formula, lengths)
                for lengths, counted in probes
            )

        found = {}
        for name in whole:
            fitting = (each for each in self._candidates(name) if fits(name, each))
            formula = next(fitting, None)
            if formula is None:
                return None
            found[name] = formula
        return found

    def _candidates(self, name: str) -> Iterator[Formula]:
        weight = tuple(axis for axis in self._axes if axis[0] == f"{name}.weight")
        if weight:
            yield (weight,)
        yield ((),)
        inside = [axis for axis in self._axes if axis[0].startswith(f"{name}.")]
        ahead = [(f"{PROJECTION}.weight", 1)]
        yield from (((axis,),) for axis in inside + ahead)
        for one, other in combinations_with_replacement(inside, 2):
            yield ((one, other),)
            yield ((one,), (other,))
        yield from (((axis,),) for axis in self._axes)


def _value(formula: Formula, lengths: dict[Axis, int]) -> int:
    return sum(prod(lengths[axis] for axis in axes) for axes in formula)


def _by_module(model: QueryModel, resolution: int) -> dict[str, int]:
    return macs_by_layer(with_zeros(model), resolution)


@torch.no_grad()
def with_zeros(model: QueryModel) -> QueryModel:
    """Return a copy on the CPU, all of whose tensors are zero, of a model without memory."""
    forget(model)
    copied = copy.deepcopy(model).to_empty(device="cpu")
    tensors: list[Tensor] = [*copied.parameters(), *copied.buffers()]
    for tensor in tensors:
        tensor.zero_()
    return copied
