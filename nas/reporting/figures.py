"""The plots of a report, made with Plotly and, where they serve, by Optuna."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.visualization import plot_hypervolume_history, plot_optimization_history

from nas.config.budget import format_macs
from nas.config.objectives import ACCURACY
from nas.study.front import Record, is_scored

ACCENT = "#2f7de1"
_COLOURS = (ACCENT, "#e08a00", "#12a67c", "#d1588f", "#8a6fe8", "#5aa9d6")
_INK = "#8b93a1"  # read on white and on black; the page's style sheet sets the text
_SYMBOLS = {
    "shared weights": "circle",
    "re-aligned": "diamond",
    "aligned on": "triangle-up",
    "finished": "star",
    "adapted": "x",
}
_TARGET_QUANTILE = 0.25
_MOST_PARAMETERS = 12
_FEWEST_TRIALS = 20  # Optuna asks for 5 trials above the quantile


def pareto(
    records: Sequence[Record],
    front: Sequence[Record],
    *,
    ties: Mapping[int, int],
    stepped: bool,
    gallery_macs: int | None,
) -> go.Figure:
    """Plot MACs against the validation accuracy of every candidate, the front drawn through.

    Members of the front that are not distinguishable from a cheaper one are hollow, and a band
    leads from one to the other.

    Args:
        records: All scored candidates.
        front: Those that no other dominates, by MACs.
        ties: Trial of the cheaper member by trial of the one that is tied with it.
        stepped: Whether the front is one of MACs and accuracy, so that a staircase bounds it.
        gallery_macs: MACs of the gallery network, which gets a mark of its own; None if unknown.
    """
    figure = go.Figure()
    colours = {route: _COLOURS[i % len(_COLOURS)] for i, route in enumerate(_routes(records))}
    grown = [
        (r, next(p for p in records if p.trial == r.parent))
        for r in records
        if r.parent is not None
    ]
    if grown:
        figure.add_scatter(
            x=[x for child, parent in grown for x in (parent.macs, child.macs, None)],
            y=[y for child, parent in grown for y in (parent.accuracy, child.accuracy, None)],
            mode="lines",
            line={"color": _INK, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            name="gained by finishing",
        )
    if stepped:
        figure.add_scatter(
            x=[r.macs for r in front],
            y=[r.accuracy for r in front],
            mode="lines",
            line={"color": _INK, "width": 2, "shape": "hv"},
            hoverinfo="skip",
            name="Pareto front",
        )
    members = {r.trial: r for r in front}
    tied = [(members[cheaper], members[trial]) for trial, cheaper in ties.items()]
    if tied:
        figure.add_scatter(
            x=[x for pair in tied for x in (*(r.macs for r in pair), None)],
            y=[y for pair in tied for y in (*(r.accuracy for r in pair), None)],
            mode="lines",
            line={"color": _INK, "width": 7},
            opacity=0.3,
            hoverinfo="skip",
            name="hollow: not distinguishable at 95%",
        )
    for route, fidelity in dict.fromkeys((r.route, r.fidelity) for r in records):
        group = [r for r in records if (r.route, r.fidelity) == (route, fidelity)]
        look = {"color": colours[route], "symbol": _SYMBOLS.get(fidelity, "square")}
        others = [r for r in group if r.trial not in members]
        _add_candidates(figure, others, look, ties, front=False)
        chosen = [r for r in group if r.trial in members]
        sure = [r for r in chosen if r.trial not in ties]
        _add_candidates(figure, sure, look, ties, front=True)
        hollow = {**look, "symbol": f"{look['symbol']}-open"}
        unsure = [r for r in chosen if r.trial in ties]
        _add_candidates(figure, unsure, hollow, ties, front=True)
    if records:
        _add_paragon(figure, records[0].paragon, gallery_macs)
        ticks = _log_ticks([r.macs for r in records] + ([gallery_macs] if gallery_macs else []))
        figure.update_xaxes(tickvals=ticks, ticktext=[format_macs(tick) for tick in ticks])
    figure.update_xaxes(type="log", title="MACs of one query, log scale")
    figure.update_yaxes(title=f"{_words(records)} mAP, validation")
    return styled(figure, height=560)


def macs_by_part(parts: Mapping[str, int]) -> go.Figure:
    """Plot the MACs of a model over its parts, input at the top."""
    total = sum(parts.values())
    words = [f"{format_macs(macs)} · {macs / total:.0%}" for macs in parts.values()]
    figure = _bars(parts, words)
    return figure.update_xaxes(title="MACs", exponentformat="SI", nticks=5)


def history(study: optuna.Study) -> go.Figure:
    """Plot how the search got better, by Optuna.

    Of several objectives it is the hypervolume: costs count on a log scale from the cheapest to the
    dearest candidate, qualities from 0 to 1, so a front that fills everything would reach 1.
    """
    trials = [t for t in study.get_trials(deepcopy=False) if is_scored(t)]
    columns = list(zip(*(t.values for t in trials), strict=True))
    scaled = [
        _scaled(column, direction)
        for column, direction in zip(columns, study.directions, strict=True)
    ]
    copy = _copy(study, trials, list(zip(*scaled, strict=True)))
    if len(study.directions) == 1:
        figure = plot_optimization_history(copy)
    else:
        worst = [1.0 if d == StudyDirection.MINIMIZE else 0.0 for d in study.directions]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls this plot experimental
            figure = plot_hypervolume_history(copy, worst)
        figure.update_yaxes(title="hypervolume", rangemode="tozero")
        figure.update_traces(mode="lines", line={"color": ACCENT, "width": 2, "shape": "hv"})
    figure.update_xaxes(title="scored candidate")
    return styled(figure.update_layout(title=None), height=340)


def importances(study: optuna.Study) -> go.Figure | None:
    """Plot which parameters decide the accuracy, by Optuna's PED-ANOVA.

    Returns:
        None where the study has too few trials for a stable answer.
    """
    trials = [
        t
        for t in study.get_trials(deepcopy=False)
        if is_scored(t) and t.user_attrs["parent"] is None
    ]
    if len(trials) < _FEWEST_TRIALS:
        return None
    copy = _copy(study, trials, [t.values for t in trials])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PED-ANOVA takes small targets for good ones: hence minus
        found = get_param_importances(
            copy,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=_TARGET_QUANTILE),
            target=lambda trial: -trial.user_attrs["accuracy"],
        )
    choices = {name for t in trials for name, each in t.distributions.items() if not each.single()}
    shown = {name: value for name, value in found.items() if name in choices}
    shown = dict(list(shown.items())[:_MOST_PARAMETERS])
    figure = _bars(shown, [f"{value:.2f}" for value in shown.values()])
    return figure.update_xaxes(title="importance for an accuracy in the best quarter", nticks=5)


def _bars(values: Mapping[str, float], words: Sequence[str]) -> go.Figure:
    """Horizontal bars, the first at the top, with words behind them."""
    figure = go.Figure(
        go.Bar(
            x=list(values.values()),
            y=list(values),
            orientation="h",
            marker_color=ACCENT,
            text=words,
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix=" ")
    figure.update_xaxes(range=[0, 1.4 * max(values.values(), default=1)])
    return styled(figure, height=100 + 26 * len(values))


def styled(figure: go.Figure, *, height: int) -> go.Figure:
    """Give a figure the page's looks: see-through, so that light and dark pages show through."""
    return figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 13},
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
            "itemsizing": "constant",
        },
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": _INK, "activecolor": ACCENT},
        hoverlabel={"align": "left"},
    )


def _add_candidates(
    figure: go.Figure,
    group: Sequence[Record],
    look: Mapping[str, str],
    ties: Mapping[int, int],
    *,
    front: bool,
) -> None:
    """Marks of one route and fidelity; members of the front are larger and have error bars."""
    if not group:
        return
    title = f"{group[0].route}, {group[0].fidelity}"
    shown = {trace.name for trace in figure.data}
    figure.add_scatter(
        x=[r.macs for r in group],
        y=[r.accuracy for r in group],
        mode="markers",
        name=title,
        legendgroup=title,
        showlegend=title not in shown,
        marker={
            **look,
            "size": 12 if front else 8,
            "opacity": 1.0 if front else 0.5,
            "line": {"width": 2}
            if look["symbol"].endswith("-open")
            else {"width": 1, "color": "rgba(255,255,255,0.7)"},
        },
        error_y={
            "visible": front,
            "array": [r.interval[1] - r.accuracy for r in group],
            "arrayminus": [r.accuracy - r.interval[0] for r in group],
            "color": look["color"],
            "thickness": 1,
            "width": 3,
        },
        text=[_hover(r, ties.get(r.trial)) for r in group],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_paragon(figure: go.Figure, paragon: float, gallery_macs: int | None) -> None:
    figure.add_hline(
        y=paragon,
        line={"color": _INK, "width": 1.5, "dash": "dash"},
        name=f"paragon {paragon:.3f}",
        showlegend=True,
    )
    if gallery_macs is not None:
        figure.add_scatter(
            x=[gallery_macs],
            y=[paragon],
            mode="markers",
            name="gallery network",
            marker={"color": _INK, "symbol": "square", "size": 12},
            hovertemplate=f"gallery network<br>{format_macs(gallery_macs)} MACs<br>"
            f"paragon {paragon:.4f}<extra></extra>",
        )


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers across positive values: 1, 2, 5, or powers of ten over many decades."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if high - low <= 4 else (1,)
    return [step * 10.0**power for power in range(low, high + 1) for step in steps]


def _words(records: Sequence[Record]) -> str:
    """The accuracy that a study chooses by, for people."""
    return ACCURACY[records[0].judge].words if records else ACCURACY["labels"].words


def _accuracy(trial: optuna.trial.FrozenTrial) -> float:
    judge = trial.user_attrs.get("judge", "labels")
    return float(trial.user_attrs[ACCURACY[judge].name])


def _routes(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(r.route for r in sorted(records, key=lambda r: r.route)))


def _hover(record: Record, tied: int | None) -> str:
    params = [f"{name} {value}" for name, value in record.architecture.params.items()]
    lines = [", ".join(params[i : i + 4]) for i in range(0, len(params), 4)]
    low, high = record.interval
    return "<br>".join(
        [
            f"<b>trial {record.trial}</b>, {record.route}, {record.fidelity}",
            f"{format_macs(record.macs)} MACs, {format_macs(record.parameters)} parameters, "
            f"{record.resolution} px",
            f"{_words([record])} {record.accuracy:.4f} ({low:.3f} to {high:.3f}), "
            f"{record.accuracy / record.paragon:.1%} of paragon"
            + ("" if record.self_test is None else f", self-test {record.self_test:.4f}"),
            "" if tied is None else f"not distinguishable at 95% from trial {tied}<br>",
            *lines,
        ]
    )


def _scaled(values: Sequence[float], direction: StudyDirection) -> list[float]:
    if direction == StudyDirection.MAXIMIZE:
        return list(values)
    span = math.log(max(values) / min(values)) or 1.0
    return [math.log(value / min(values)) / span for value in values]


def _copy(
    study: optuna.Study,
    trials: Sequence[optuna.trial.FrozenTrial],
    values: Sequence[Sequence[Any]],
) -> optuna.Study:
    """A study in memory of these trials alone, with these values."""
    copy = optuna.create_study(directions=study.directions)
    for trial, each in zip(trials, values, strict=True):
        copy.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                values=list(each),
                user_attrs={"accuracy": _accuracy(trial)},
            )
        )
    return copy
