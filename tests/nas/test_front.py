"""The Pareto front against its definition."""

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from nas.study.front import Record, pareto_front, select
from searchspaces import Architecture


def record(macs: int, cross_test: float, parent: int | None = None) -> Record:
    return Record(
        trial=0,
        route="slices",
        fidelity="shared weights",
        architecture=Architecture("mbconv", {"resolution": 32}),
        resolution=32,
        costs={"macs": macs, "parameters": macs // 10},
        cross_test=cross_test,
        interval=(cross_test - 0.1, cross_test + 0.1),
        self_test=0.5,
        paragon=0.9,
        parent=parent,
    )


def study_of(records: list[Record]) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for each in records:
        study.add_trial(
            create_trial(values=[float(each.macs), each.cross_test], user_attrs=each.attributes())
        )
    return study


points = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])), max_size=12
)


@given(points)
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, float]]) -> None:
    front = pareto_front(study_of([record(m, q) for m, q in pairs]))
    best = {
        (m, q)
        for m, q in pairs
        if not any(n <= m and r >= q and (n, r) != (m, q) for n, r in pairs)
    }
    assert {(r.macs, r.cross_test) for r in front} == best
    assert len(front) == len(best)
    assert [r.macs for r in front] == sorted(r.macs for r in front)


def test_the_front_agrees_with_optunas_on_distinct_points() -> None:
    study = study_of([record(5, 0.5), record(3, 0.4), record(4, 0.2), record(9, 0.9)])
    assert {r.trial for r in pareto_front(study)} == {t.number for t in study.best_trials}


def test_records_survive_the_storage() -> None:
    first = record(5, 0.5)
    (kept,) = pareto_front(study_of([first]))
    assert kept == first


def test_unscored_trials_and_finished_models_can_be_left_out() -> None:
    study = study_of([record(5, 0.5), record(5, 0.7, parent=0)])
    study.add_trial(create_trial(values=[1.0, 0.0]))  # outside the budget, never measured
    study.add_trial(create_trial(state=TrialState.FAIL))
    assert [r.trial for r in pareto_front(study)] == [1]
    assert [r.trial for r in pareto_front(study, finished=False)] == [0]


def test_select_keeps_what_meets_both_bounds() -> None:
    records = [record(5, 0.5), record(8, 0.8), record(9, 0.9)]
    assert select(records, max_macs=8, min_map=0.6) == [records[1]]
    assert select(records) == records
