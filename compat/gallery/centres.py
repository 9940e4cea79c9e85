"""Hash centres: one ±1 code per class, far from each other, near for classes that are alike."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from compat.errors import CompatError

_FAR, _STEP, _NEAR = 0.61, 0.01, 0.2  # distances, as shares of the bits
_TRIES = 10_000


def draw_centres(classes: int, bits: int, *, seed: int = 0) -> np.ndarray:
    """Random ±1 codes (classes, bits) float32 that keep a distance from each other.

    A code is drawn until it differs from all earlier ones in a share of .61 of its bits or more.
    The share is lowered by .01 after every 10,000 tries without success, down to .2. The schedule
    is that of Xuan et al., "Central similarity consistency hashing for asymmetric image retrieval",
    Computational Visual Media, doi:10.1007/s41095-024-0428-y.

    Raises:
        CompatError: When so many codes of so few bits are not found.
    """
    rng = np.random.default_rng(seed)
    centres = np.empty((classes, bits), dtype=np.float32)
    found, share = 0, _FAR
    with tqdm(total=classes, desc="drawing hash centres", unit="centres", delay=2) as bar:
        while found < classes:
            if share < _NEAR:
                raise CompatError(
                    f"{bits} bits have no room for {classes} hash centres that differ in a share "
                    f"of {_NEAR} of them (found {found}): use more bits."
                )
            nearest = bits - 2 * np.ceil(bits * share - 1e-9)  # largest dot product allowed
            tries = rng.choice(np.array([-1, 1], np.float32), size=(_TRIES, bits))
            fits = (tries @ centres[:found].T <= nearest).all(axis=1)
            before = found
            while fits.any() and found < classes:
                centres[found] = tries[np.argmax(fits)]
                fits &= tries @ centres[found] <= nearest
                found += 1
            bar.update(found - before)
            if found == before:
                share = round(share - _STEP, 2)
    return centres


def assign_centres(centres: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The centres (C, k) in an order that gives similar classes similar centres.

    The class means (C, d) are centred and turned to their principal axes, one axis per bit. The
    Hungarian algorithm then assigns the centres so that the sum of the products between a class's
    coordinates and its centre is largest: classes near each other lie near the same centres.
    Xuan et al. assign by this algorithm too; the cost is chosen here.
    """
    order = linear_sum_assignment(affinities(centres, means), maximize=True)[1]
    return centres[order]


def affinities(centres: np.ndarray, means: np.ndarray) -> np.ndarray:
    """How well each class (row) fits each centre (column), (C, C)."""
    axes, lengths, _ = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    kept = min(centres.shape[1], len(lengths))
    return (axes[:, :kept] * lengths[:kept]) @ centres[:, :kept].T
