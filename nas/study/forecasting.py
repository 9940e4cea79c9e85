"""What a candidate would score one rung higher, from those that went there before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_GAIN = 0.1  # how much scores differ between two rungs, one standard deviation
_SCORE, _DECADES = 0.2, 1.0  # differences in score and in MACs over which gains become unrelated
_ROUTE = 0.7  # how far apart two routes are in that sense
_NOISE = 0.01  # of one training, one standard deviation


@dataclass(frozen=True)
class Standing:
    """What a candidate's gain is guessed from.

    Attributes:
        score: On this rung, mAP.
        macs: Its MACs.
        route: The way it came.
    """

    score: float
    macs: float
    route: str


def gains(
    candidates: Sequence[Standing],
    known: Sequence[tuple[Standing, float]],
    *,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw what candidates would gain by further training, jointly.

    A Gaussian process over score, log-MACs and route with a fixed prior, so that it says something
    sensible from the first pair on: gains are about 0.1, alike for candidates of like score and
    size on one route, and scatter by 0.01 from training to training. Rasmussen and Williams,
    "Gaussian Processes for Machine Learning", 2006, chapter 2.

    Args:
        candidates: N candidates of this rung.
        known: Those that went up already, and what they gained.
        draws: How many joint draws.
        rng: Source of the draws.

    Returns:
        Gains, float64 (draws, N).
    """
    from sklearn.gaussian_process import GaussianProcessRegressor  # slow to import
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    process = GaussianProcessRegressor(
        ConstantKernel(_GAIN**2, "fixed") * RBF(1.0, "fixed"),
        alpha=_NOISE**2,
        optimizer=None,
    )
    routes = sorted({each.route for each in [*candidates, *(each for each, _ in known)]})
    if known:
        process.fit(_coordinates([each for each, _ in known], routes), [gain for _, gain in known])
    mean, covariance = process.predict(_coordinates(candidates, routes), return_cov=True)
    mean = np.atleast_1d(mean)  # scikit-learn takes the axis of a single candidate away
    covariance = np.atleast_2d(covariance) + _NOISE**2 * np.eye(len(mean))
    return rng.multivariate_normal(mean, covariance, size=draws, method="eigh")


def _coordinates(standings: Sequence[Standing], routes: Sequence[str]) -> np.ndarray:
    """Coordinates in units of the prior's lengths, float64 (N, 2 + routes)."""
    return np.array(
        [
            [each.score / _SCORE, np.log10(each.macs) / _DECADES]
            + [_ROUTE * (each.route == route) for route in routes]
            for each in standings
        ],
        dtype=np.float64,
    )
