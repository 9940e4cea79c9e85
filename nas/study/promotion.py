"""Which candidate a rung of the fidelity ladder passes on to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nas.config.objectives import ACCURACY, Objective
from nas.study.dominance import dominated
from nas.study.forecasting import Standing, gains
from nas.study.front import Record

_WORLDS = 128  # joint draws of all scores
_CONTENDERS = 150  # candidates nearest to the front, among which one is chosen


def promote(
    rung: Sequence[Record],
    grown: Mapping[int, Record],
    objectives: Sequence[Objective],
    *,
    tiers: Sequence[int] = (),
    seed: int,
) -> Record | None:
    """Choose the candidate that promises most for the front of the next rung, or for its tiers.

    The scores that candidates would have on the next rung are drawn jointly (`gains`). Every draw
    has a Pareto front. The set of models trained so far leaves a distance to it: by how much the
    nearest of them misses a member of the front in its worst objective, on average over the members
    (the additive ε-indicator of Zitzler et al., "Performance assessment of multiobjective
    optimizers", IEEE Trans. Evolutionary Computation 2003, with the mean in place of the maximum).
    The candidate that lowers the expected distance most comes next. So a candidate that is
    dominated now has its chance where the draws say that it may not stay so, and no part of the
    front is trained twice while another waits.

    Costs count by their logarithm, and every objective by the range that it has on this rung.

    With tiers the front counts only where they are: the candidate comes next that is expected to
    raise most the best score within each of them, summed over the tiers (the expected improvement
    of Mockus et al., 1978, one for each).

    Args:
        rung: Scored candidates of this rung.
        grown: What became of those that went up already, by their trial.
        objectives: Of the study.
        tiers: MACs within which the best model is wanted.
        seed: Of the draws.

    Returns:
        The candidate, or None if all of them went up.
    """
    waiting = [r for r in rung if r.trial not in grown]
    if not waiting:
        return None
    if tiers:
        return _for_tiers(rung, waiting, grown, tiers, seed)
    return _for_front(rung, waiting, grown, objectives, seed)


def promote_several(
    rung: Sequence[Record],
    grown: Mapping[int, Record],
    objectives: Sequence[Objective],
    *,
    count: int,
    tiers: Sequence[int] = (),
    seed: int,
) -> list[Record]:
    """Choose candidates that are trained at the same time; as `promote` does where ``count`` is 1.

    Each further one is chosen as if those before it had reached already what is expected of them
    (the "kriging believer" of Ginsbourger et al., "Kriging is well-suited to parallelize
    optimization", 2010).

    Returns:
        At most ``count`` candidates; fewer where no more are left.
    """
    chosen: list[Record] = []
    believed = dict(grown)
    for _ in range(count):
        if chosen:
            believed[chosen[-1].trial] = _expected(chosen[-1], rung, grown, seed)
        record = promote(rung, believed, objectives, tiers=tiers, seed=seed)
        if record is None:
            break
        chosen.append(record)
    return chosen


def _expected(
    record: Record, rung: Sequence[Record], grown: Mapping[int, Record], seed: int
) -> Record:
    """A candidate with the scores that it would have on the next rung, on average."""
    quality = ACCURACY[record.judge]
    parents = [r for r in rung if r.trial in grown]
    worlds = _worlds([record], parents, grown, [quality], seed)
    gain = -float(worlds.mean()) - record.accuracy
    scores = {name: getattr(record, name) for name in ("cross_test", "agreement", "self_test")}
    known = {name: min(1.0, score + gain) for name, score in scores.items() if score is not None}
    return replace(record, **known)


def _for_tiers(
    rung: Sequence[Record],
    waiting: Sequence[Record],
    grown: Mapping[int, Record],
    tiers: Sequence[int],
    seed: int,
) -> Record | None:
    contenders = _best_within(waiting, tiers)
    if not contenders:
        return None
    quality = ACCURACY[rung[0].judge]
    parents = [r for r in rung if r.trial in grown]
    scores = -_worlds(contenders, parents, grown, [quality], seed)[:, :, 0]
    gained = np.zeros(len(contenders))
    for tier in tiers:
        reached = max((r.accuracy for r in grown.values() if r.macs <= tier), default=0.0)
        within = np.array([r.macs <= tier for r in contenders])
        gained += within * np.maximum(0.0, scores - reached).mean(axis=0)
    return contenders[int(np.argmax(gained))]


def _best_within(waiting: Sequence[Record], tiers: Sequence[int]) -> list[Record]:
    """Return the best candidates of each tier, each candidate once."""
    found: dict[int, Record] = {}
    for tier in tiers:
        within = sorted((r for r in waiting if r.macs <= tier), key=lambda r: -r.accuracy)
        found |= {r.trial: r for r in within[: _CONTENDERS // len(tiers) + 1]}
    return list(found.values())


def _for_front(
    rung: Sequence[Record],
    waiting: Sequence[Record],
    grown: Mapping[int, Record],
    objectives: Sequence[Objective],
    seed: int,
) -> Record:
    losses = _losses(rung, objectives)
    scale = np.ptp(losses, axis=0)
    scale[scale == 0] = 1.0
    front = losses[~dominated(losses)] / scale
    distance = _misses(_losses(waiting, objectives) / scale, front).min(axis=1)
    nearest = np.argsort(distance, kind="stable")[:_CONTENDERS]
    contenders = [waiting[i] for i in nearest.tolist()]
    worlds = _worlds(contenders, [r for r in rung if r.trial in grown], grown, objectives, seed)
    trained = _losses(list(grown.values()), objectives) / scale
    gained = np.zeros(len(contenders))
    for world in worlds / scale:
        everyone = np.concatenate([world, trained])
        front = everyone[~dominated(everyone)]
        left = _misses(trained, front).min(axis=0, initial=1.0)
        gained += np.maximum(0.0, left - _misses(world, front)).mean(axis=1)
    return contenders[int(np.argmax(gained))]


def _worlds(
    contenders: Sequence[Record],
    parents: Sequence[Record],
    grown: Mapping[int, Record],
    objectives: Sequence[Objective],
    seed: int,
) -> np.ndarray:
    """Draw the contenders' losses on the next rung, float64 (draws, N, objectives)."""
    rng = np.random.default_rng([seed, len(grown)])
    losses = np.repeat(_losses(contenders, objectives)[None], _WORLDS, axis=0)
    for column, objective in enumerate(objectives):
        if objective.cost is None:
            losses[:, :, column] -= gains(
                [_standing(r, objective) for r in contenders],
                [
                    (_standing(r, objective), grown[r.trial].value(objective) - r.value(objective))
                    for r in parents
                ],
                draws=_WORLDS,
                rng=rng,
            )
    return losses


def _standing(record: Record, objective: Objective) -> Standing:
    return Standing(record.value(objective), record.macs, record.route)


def _losses(records: Sequence[Record], objectives: Sequence[Objective]) -> np.ndarray:
    """Return what is to be minimised, float64 (N, objectives): log-costs and negative scores."""
    values = np.array([[r.value(each) for each in objectives] for r in records], dtype=np.float64)
    values = values.reshape(len(records), len(objectives))
    for column, objective in enumerate(objectives):
        values[:, column] = (
            -values[:, column] if objective.cost is None else np.log(values[:, column])
        )
    return values


def _misses(losses: np.ndarray, front: np.ndarray) -> np.ndarray:
    """By how much each row misses each member of a front in its worst objective, (N, F)."""
    return np.maximum(0.0, losses[:, None] - front[None]).max(axis=2)
