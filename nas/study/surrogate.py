"""Scores of architectures learnt from those of others, without any network."""

import warnings
from collections.abc import Sequence

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from searchspaces import Architecture, SearchSpace, parameters


def encode(space: SearchSpace, architectures: Sequence[Architecture], dimension: int) -> np.ndarray:
    """Turn architectures into numbers.

    A number among a parameter's choices becomes its place on the grid, 0 to 1; a category becomes
    one column per choice; a parameter that a choice leaves out becomes zeros, and one without a
    choice nothing. The last column is the decimal logarithm of MACs.

    Args:
        space: The architectures' search space.
        architectures: N of them.
        dimension: Of the gallery space, for counting MACs.

    Returns:
        Coordinates, float64 (N, F).
    """
    axes = space.distributions()
    rows = [
        [number for name, axis in axes.items() for number in _columns(name, axis, each)]
        + [np.log10(space.macs(each, dimension))]
        for each in architectures
    ]
    return np.array(rows, dtype=np.float64)


def regress(known: np.ndarray, scores: Sequence[float], new: np.ndarray) -> tuple[np.ndarray, ...]:
    """Predict scores by a Gaussian process whose prior is fitted to what is known.

    Args:
        known: Coordinates (N, F) of candidates with scores.
        scores: Their scores.
        new: Coordinates (M, F) of others.

    Returns:
        Mean and standard deviation of the predicted scores, float64 (M,) each.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel() * RBF(2.0, (0.1, 100.0)) + WhiteKernel(0.01, (1e-5, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():  # a prior at the end of its range is as good as any
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(known, np.asarray(scores, dtype=np.float64))
    mean, deviation = process.predict(new, return_std=True)
    return mean, deviation


def _columns(name: str, axis: BaseDistribution, architecture: Architecture) -> list[float]:
    values = parameters.grid(name, axis)
    value = architecture.params.get(name)
    if len(values) == 1:
        return []
    if isinstance(axis, CategoricalDistribution):
        return [float(value == each) for each in values]
    if value is None:
        return [0.0]
    return [parameters.position(value, values) / (len(values) - 1)]
