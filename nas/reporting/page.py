"""The report of a study: one HTML page that needs nothing but a browser."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs
from tqdm import tqdm

from compat.data.splits import drawn_by
from compat.device import describe
from compat.tasks.retrieval import RANKED, RetrievalTask
from nas.config.budget import format_macs
from nas.config.objectives import ACCURACY, OBJECTIVES, bounds
from nas.deployment.card import product_version
from nas.errors import StudyError
from nas.reporting import figures
from nas.reporting.pictures import examples
from nas.statistics.concordance import concordance
from nas.statistics.repeats import repeated
from nas.statistics.ties import Ties, distinguish
from nas.study.front import Record, best_within
from nas.study.held_out import Measured, measured_on_test
from nas.study.query_scores import restore
from nas.study.run import Run
from searchspaces.support.files import write_atomically

_KEPT = 0.9  # share of the best accuracy that a small model must keep to be shown beside it


@dataclass(frozen=True)
class Row:
    """One member of the front, with what the test classes say of it.

    Attributes:
        record: The member.
        measured: On the test classes.
        share_of_gallery: MACs as a share of the gallery network's; None where those are unknown.
        tied: The cheaper trial that it is not distinguishable from.
    """

    record: Record
    measured: Measured
    share_of_gallery: float | None
    tied: int | None

    @property
    def of_paragon(self) -> float:
        """Test accuracy as a share of the test paragon."""
        return self.measured.scores.cross_test.map / self.measured.scores.paragon.map

    @property
    def promised(self) -> float:
        """Validation accuracy as a share of the validation paragon."""
        return self.record.accuracy / self.record.paragon


def report(run: Run) -> Path:
    """Write ``report.html`` into the run folder: front, scores on test classes, plots, pictures.

    Returns:
        The page. It holds its scripts and pictures, and asks no network for anything.

    Raises:
        StudyError: The study has no scored candidate yet.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    front = run.front()
    if not front:
        raise StudyError(
            f"The run '{run.path}' has no scored candidate to report; `querynas search` first."
        )
    restore(run, front)
    ties = distinguish(run, front)
    rows = [
        _row(record, measured_on_test(run, record), ties, run.data.gallery.manifest.model_macs)
        for record in tqdm(front, desc="measuring the front on test classes", unit="model")
    ]
    featured = _featured(rows)
    accuracy = ACCURACY[run.data.judge]
    page = _template().render(
        title=f"Query models for {run.data.images.name}",
        version=product_version(),
        plotly=Markup(get_plotlyjs()),
        part=run.data.unseen,
        accuracy=accuracy.words,
        judge=run.data.judge,
        concordance=concordance(run.records()),
        facts=_facts(run),
        rows=rows,
        tiers=_tiers(rows, run.config.tiers),
        ties=ties.words(run.path),
        promised=statistics.fmean(row.promised for row in rows),
        kept=statistics.fmean(row.of_paragon for row in rows),
        repeated=repeated(run),
        measured={row.record.trial: row.measured for row in rows},
        featured=featured,
        gallery_macs=run.data.gallery.manifest.model_macs,
        pareto=_embedded(
            figures.pareto(
                run.records(),
                front,
                ties={row.record.trial: row.tied for row in rows if row.tied is not None},
                stepped=set(run.config.objectives) == {"macs", accuracy.name},
                gallery_macs=run.data.gallery.manifest.model_macs,
            )
        ),
        parts=[(row, _embedded(figures.macs_by_part(row.measured.parts))) for row in featured],
        several_objectives=len(run.study.directions) > 1,
        history=_embedded(figures.history(run.study)),
        importances=_embedded(figures.importances(run.study)),
        examples=_examples(run, featured),
        study=yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False),
    )
    return write_atomically(run.path / "report.html", lambda file: file.write_text(page, "utf-8"))


def _row(record: Record, measured: Measured, ties: Ties, gallery_macs: int | None) -> Row:
    share = record.macs / gallery_macs if gallery_macs else None
    return Row(record, measured, share, ties.tied_with(record.trial))


def _tiers(rows: Sequence[Row], tiers: Sequence[int]) -> dict[int, Row | None]:
    by_trial = {row.record.trial: row for row in rows}
    best = best_within([row.record for row in rows], tiers)
    return {tier: by_trial[found.trial] if found else None for tier, found in best.items()}


def _featured(rows: Sequence[Row]) -> list[Row]:
    """The member best in validation, and the smallest that keeps nine tenths of its accuracy."""
    best = max(rows, key=lambda row: row.record.accuracy)
    small = next(r for r in rows if r.record.accuracy >= _KEPT * best.record.accuracy)
    if small is best:
        small = rows[0]
    return [best] if small is best else [best, small]


def _examples(run: Run, featured: Sequence[Row]) -> list[Any]:
    task = run.data.test
    embeddings = {}
    for row in featured:
        model = run.model(row.record)
        title = f"trial {row.record.trial}, {format_macs(row.record.macs)} MACs"
        embeddings[title] = task.embed(model)
    return examples(task, embeddings, seed=run.config.seed)


def _facts(run: Run) -> dict[str, str]:
    data, gallery, config = run.data, run.data.gallery, run.config
    trials = run.study.get_trials(deepcopy=False)
    scored = len(run.records())
    failed = sum(t.state == TrialState.FAIL for t in trials)
    objectives = [
        f"{OBJECTIVES[name].words} ({direction.name.lower()})"
        for name, direction in zip(config.objectives, run.study.directions, strict=True)
    ]
    return {
        "Data": config.data,
        "Images": f"{len(data.splits.train):,} train; {_asked(data.val)} for validation, "
        f"{_asked(data.test)} for the test",
        "Split": f"by {drawn_by(data.images, config.split.by)}, seed {config.split.seed}"
        if data.images.split is None
        else "as the data say",
        "Right is": _RIGHT[data.judge],
        "Gallery network": gallery.manifest.model or "unknown (vectors were imported)",
        "MACs of the gallery network": format_macs(gallery.manifest.model_macs)
        if gallery.manifest.model_macs
        else "unknown",
        "Gallery space": f"{gallery.path}: {len(gallery):,} vectors, {gallery.dimension} "
        f"dimensions, {gallery.metric}, {gallery.bytes_per_vector:,} bytes per vector",
        "Gallery fingerprint": gallery.fingerprint,
        "Spaces": ", ".join(config.spaces),
        "Objectives": ", ".join(objectives),
        "Budget": ", ".join(
            f"{bound.name} {bound.objective.text(bound.limit)}" for bound in bounds(config.budget)
        )
        or "none",
        "Loss": str(config.alignment_loss),
        "Sampler": f"{config.sampler}, seed {config.seed}",
        "Candidates": f"{scored:,} scored, {failed:,} failed, "
        f"{len(trials) - scored - failed:,} outside the budget or unfinished",
        "Search time": _duration(trials),
        "Scored on": describe(run.aligner.device),
    }


_RIGHT = {
    "labels": "an image of the query's class",
    "ranking": f"what the gallery network finds first, {RANKED} images",
}


def _asked(task: RetrievalTask) -> str:
    queries, gallery = task.retrieval.queries, task.retrieval.gallery
    return f"{len(queries):,} queries in {len(gallery):,}"


def _duration(trials: Sequence[Any]) -> str:
    starts = [t.datetime_start for t in trials if t.datetime_start]
    ends = [t.datetime_complete for t in trials if t.datetime_complete]
    if not starts or not ends:
        return "unknown"
    seconds = round((max(ends) - min(starts)).total_seconds())
    return f"{timedelta(seconds=seconds)} h, until {max(ends):%Y-%m-%d %H:%M}"


def _embedded(figure: go.Figure | None) -> Markup | None:
    if figure is None:
        return None
    return Markup(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={
                "responsive": True,
                "displaylogo": False,
                "modeBarButtons": [["toImage", "resetScale2d"]],
            },
        )
    )


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("nas.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["macs"] = format_macs
    return environment.get_template("report.html.j2")
