"""The rules by which papers call a model compatible, as functions of retrieval scores.

M(a, b) is a retrieval score (here mAP) of queries by model a in a gallery by model b. The papers on
backward compatibility upgrade an *old* model, which the gallery was embedded by, to a *new* one
that asks; M_* is the score of the new network trained freely, without compatibility. In asymmetric
search the gallery model is usually the larger one; each function says who takes which role.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from compat.errors import CompatError


def bct_criterion(cross: float, old: float) -> bool:
    """M(new, old) > M(old, old): asking the old gallery with the new model is worth it.

    Shen, Xiong, Xia, Soatto, "Towards Backward-Compatible Representation Learning", CVPR 2020.
    In asymmetric search new = query model and old = gallery model: M(q,g) > M(g,g), which a query
    model smaller than the gallery model is not expected to meet.
    """
    return cross > old


def cmp_nas_rule(cross: float, self_test: float) -> bool:
    """M(q,g) > M(q,q): the gallery model's gallery serves the query model better than its own.

    Duggal et al., "Compatibility-Aware Heterogeneous Visual Search", CVPR 2021.
    """
    return cross > self_test


def update_gain(cross: float, old: float, paragon: float) -> float:
    """(M(new, old) − M(old, old)) / (M(paragon) − M(old, old)), of Shen et al., CVPR 2020.

    In asymmetric search, where the large gallery model stands at the far end, the sensible roles
    are: cross = M(q,g), old = M(q,q), the small model alone on both sides, and paragon = M(g,g):
    the share of the way from the small to the large symmetric system that asymmetric search makes.
    1 is the whole way, 0 none of it; below 0 the query model had better search its own gallery.

    Raises:
        CompatError: The paragon is not better than the old system, so there is no way to go.
    """
    return (cross - old) / _positive(paragon - old, "paragon", paragon, old)


@dataclass(frozen=True)
class Criteria:
    """The criteria that the three tests of one query model decide.

    Attributes:
        bct: M(q,g) > M(g,g), see `bct_criterion`.
        cmp_nas: M(q,g) > M(q,q), see `cmp_nas_rule`.
        update_gain: See there; None where the paragon is not better than the self-test.
    """

    bct: bool
    cmp_nas: bool
    update_gain: float | None

    def as_dict(self) -> dict[str, bool | float | None]:
        """JSON-able values."""
        return asdict(self)


def criteria(*, self_test: float, cross_test: float, paragon: float) -> Criteria:
    """Decide the criteria from M(q,q), M(q,g) and M(g,g)."""
    room = paragon > self_test
    return Criteria(
        bct=bct_criterion(cross_test, paragon),
        cmp_nas=cmp_nas_rule(cross_test, self_test),
        update_gain=update_gain(cross_test, self_test, paragon) if room else None,
    )


@dataclass(frozen=True)
class AdvBCTScores:
    """The three scores of AdvBCT, each in (0, 1).

    Attributes:
        up: P_up, discrimination that compatibility leaves: ½ means as good as trained freely.
        comp: P_comp, compatibility: ½ means as good as the old system, σ(1) ≈ .731 as the paragon.
        harmonic: P_1, harmonic mean of both.
    """

    up: float
    comp: float
    harmonic: float


def adv_bct(
    new: Sequence[float], cross: Sequence[float], old: Sequence[float], paragon: Sequence[float]
) -> AdvBCTScores:
    """P_up = mean σ((M_new − M_*)/M_*), P_comp = mean σ((M_cross − M_old)/(M_* − M_old)), P_1.

    Pan et al., "Boundary-aware Backward-Compatible Representation via Adversarial Learning in Image
    Retrieval", CVPR 2023; σ is the logistic function. Made for upgrades to a better model. With the
    roles of `update_gain` (old = M(q,q), paragon = M(g,g)) it can be had in asymmetric search too,
    but then P_up compares the query model with the gallery model.

    Args:
        new: M_new = M(new, new) on each test set, the compatible model on both sides.
        cross: M_cross = M(new, old) on each.
        old: M_old = M(old, old) on each.
        paragon: M_* on each, the model trained without compatibility on both sides.

    Raises:
        CompatError: The test sets differ in number, there is none, or on one of them the paragon
            is not better than the old system.
    """
    if not len(new) or not len(new) == len(cross) == len(old) == len(paragon):
        raise CompatError(
            f"There are {len(new)}, {len(cross)}, {len(old)} and {len(paragon)} scores of new, "
            "cross, old and paragon: give one of each per test set."
        )
    ups, comps = [], []
    for m_new, m_cross, m_old, m_star in zip(new, cross, old, paragon, strict=True):
        gap = _positive(m_star - m_old, "paragon", m_star, m_old)
        ups.append(_sigmoid((m_new - m_star) / m_star))
        comps.append(_sigmoid((m_cross - m_old) / gap))
    up, comp = float(np.mean(ups)), float(np.mean(comps))
    return AdvBCTScores(up, comp, 2 * up * comp / (up + comp))


def _positive(gap: float, name: str, value: float, old: float) -> float:
    if not gap > 0:
        raise CompatError(
            f"The {name} scores {value:.4f} and the old system {old:.4f}; a gain is defined only "
            "where the paragon is better: check the roles of the scores."
        )
    return gap


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))
