"""Whether agreement orders query models as labels do."""

from collections.abc import Sequence

from nas.study.front import Record

_FEWEST = 5  # models from which on an order says something


def concordance(records: Sequence[Record]) -> str | None:
    """One sentence on the Kendall tau of agreement and cross-test over scored candidates.

    Tau-b by scipy; None where fewer than five candidates have both.
    """
    both = [
        (r.agreement, r.cross_test)
        for r in records
        if r.agreement is not None and r.cross_test is not None
    ]
    if len(both) < _FEWEST:
        return None
    from scipy.stats import kendalltau  # slow to import

    tau = kendalltau(*zip(*both, strict=True)).statistic
    return (
        f"Agreement with the gallery network, which needs no labels, orders the {len(both)} scored "
        f"candidates as the cross-test does with a Kendall tau of {tau:.2f}."
    )
