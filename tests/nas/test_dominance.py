"""Dominance against its definition, written out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.study.dominance import dominated


@st.composite
def two_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    objectives = draw(st.integers(1, 3))
    values = st.integers(0, 3).map(float)
    return tuple(  # type: ignore[return-value]
        draw(arrays(np.float64, (draw(st.integers(0, 6)), objectives), elements=values))
        for _ in range(2)
    )


@given(two_sets())
def test_what_is_dominated_is_nowhere_better_and_somewhere_worse(
    sets: tuple[np.ndarray, np.ndarray],
) -> None:
    losses, by = sets
    for others, found in ((by, dominated(losses, by)), (losses, dominated(losses))):
        expected = [
            any(
                all(b <= a for a, b in zip(row, other, strict=True))
                and any(b < a for a, b in zip(row, other, strict=True))
                for other in others
            )
            for row in losses
        ]
        assert found.tolist() == expected


def test_equals_do_not_dominate_each_other() -> None:
    assert dominated(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]])).tolist() == [
        False,
        False,
        True,
    ]
