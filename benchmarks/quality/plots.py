"""Plot of results."""

from pathlib import Path

import numpy as np
from plotly.subplots import make_subplots
from quality.results import Results, front, hypervolume

COLOURS = ("#2f7de1", "#e08a00", "#d1588f", "#9aa0a8")


def plot(results: Results) -> Path:
    """Draw hypervolume over compute, and the fronts at the end."""
    reach = (min(r["macs"] for r in results.truth), max(r["macs"] for r in results.truth))
    budget = results.setting.budget
    moments = np.linspace(0, budget, 61)[1:]
    figure = make_subplots(1, 2, horizontal_spacing=0.08)
    for (name, seeds), colour in zip(results.fronts().items(), COLOURS, strict=False):
        volumes = np.array(
            [
                [
                    hypervolume(front([r for r in rows if r["seconds"] <= moment]), reach)
                    for moment in moments
                ]
                for rows in seeds[:20]
            ]
        )
        middle, off = volumes.mean(axis=0), volumes.std(axis=0)
        look = {"legendgroup": name, "line": {"color": colour}}
        figure.add_scatter(x=moments, y=middle, name=name, **look, row=1, col=1)
        figure.add_scatter(
            x=[*moments, *moments[::-1]],
            y=[*(middle + off), *np.maximum(middle - off, 0)[::-1]],
            fill="toself",
            opacity=0.2,
            line={"width": 0, "color": colour},
            legendgroup=name,
            showlegend=False,
            row=1,
            col=1,
        )
        rows = front([r for r in seeds[0] if r["seconds"] <= budget])
        figure.add_scatter(
            x=[r["macs"] / 1e6 for r in rows],
            y=[r["test"] for r in rows],
            mode="lines+markers",
            showlegend=False,
            **look,
            row=1,
            col=2,
        )
    true = front(results.truth)
    figure.add_scatter(
        x=[r["macs"] / 1e6 for r in true],
        y=[r["test"] for r in true],
        mode="markers",
        marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": "#30363d"}},
        name="front of the truth",
        row=1,
        col=2,
    )
    figure.update_xaxes(title_text="compute, seconds of one core", col=1)
    figure.update_yaxes(title_text="hypervolume of test scores", col=1)
    figure.update_xaxes(type="log", title_text="MMACs of one query", col=2)
    figure.update_yaxes(title_text="cross-test mAP, test classes (seed 0)", col=2)
    figure.update_layout(template="plotly_white", width=1200, height=480, margin={"t": 20})
    path = Path(results.setting.out) / "fronts.html"
    figure.write_html(path, config={"displayModeBar": False})
    return path
