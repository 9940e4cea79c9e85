"""The published criteria, on numbers worked out by hand."""

import math
from typing import Any

import pytest

from compat.errors import CompatError
from compat.metrics import adv_bct, bct_criterion, cmp_nas_rule, criteria, update_gain


def test_the_criteria_are_strict() -> None:
    assert bct_criterion(cross=0.51, old=0.5)
    assert not bct_criterion(cross=0.5, old=0.5)
    assert cmp_nas_rule(cross=0.51, self_test=0.5)
    assert not cmp_nas_rule(cross=0.5, self_test=0.5)


def test_update_gain_is_the_share_of_the_way() -> None:
    assert update_gain(cross=0.6, old=0.5, paragon=0.9) == pytest.approx(0.25)
    assert update_gain(cross=0.4, old=0.5, paragon=0.9) == pytest.approx(-0.25)
    assert update_gain(cross=0.9, old=0.5, paragon=0.9) == pytest.approx(1)
    with pytest.raises(CompatError, match=r"paragon scores 0.5000 and the old system 0.5000"):
        update_gain(cross=0.6, old=0.5, paragon=0.5)


def test_criteria_of_the_three_tests() -> None:
    found = criteria(self_test=0.5, cross_test=0.6, paragon=0.9)
    assert found.as_dict() == {"bct": False, "cmp_nas": True, "update_gain": pytest.approx(0.25)}
    above = criteria(self_test=0.7, cross_test=0.65, paragon=0.6)
    assert above.as_dict() == {"bct": True, "cmp_nas": False, "update_gain": None}


def test_adv_bct_scores_equal_their_formulas() -> None:
    def sigmoid(value: Any) -> Any:
        return 1 / (1 + math.exp(-value))

    found = adv_bct(new=[0.8, 0.6], cross=[0.7, 0.5], old=[0.5, 0.4], paragon=[0.9, 0.6])
    up = (sigmoid((0.8 - 0.9) / 0.9) + sigmoid(0)) / 2
    comp = (sigmoid((0.7 - 0.5) / 0.4) + sigmoid((0.5 - 0.4) / 0.2)) / 2
    assert (found.up, found.comp) == (pytest.approx(up), pytest.approx(comp))
    assert found.harmonic == pytest.approx(2 / (1 / up + 1 / comp))


def test_adv_bct_of_a_perfect_update() -> None:
    found = adv_bct(new=[0.9], cross=[0.9], old=[0.5], paragon=[0.9])
    assert found.up == pytest.approx(0.5)
    assert found.comp == pytest.approx(1 / (1 + math.exp(-1)))


def test_adv_bct_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(CompatError, match="one of each per test set"):
        adv_bct(new=[0.8], cross=[0.7, 0.5], old=[0.5], paragon=[0.9])
    with pytest.raises(CompatError, match="one of each per test set"):
        adv_bct(new=[], cross=[], old=[], paragon=[])
    with pytest.raises(CompatError, match="only where the paragon is better"):
        adv_bct(new=[0.8], cross=[0.7], old=[0.5], paragon=[0.4])
