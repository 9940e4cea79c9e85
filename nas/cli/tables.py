"""What the commands print: tables for people, plain rows for JSON and CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compat.gallery import Codes, GallerySpace
from compat.metrics import shape
from nas.config.budget import format_macs
from nas.config.objectives import ACCURACY, COSTS, OBJECTIVES
from nas.deployment.evaluate import Evaluation
from nas.deployment.profiles import Profile
from nas.statistics.ties import Ties
from nas.study.front import Record, best_within
from nas.study.run import Run
from searchspaces.support.files import write_atomically

_LOOKED_AT = 2048  # vectors of a gallery by which its shape is judged


def stdout_console() -> Console:
    """A console that does not squeeze tables where there is no terminal to fit them into."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_gallery(space: GallerySpace) -> None:
    """Print the facts of a gallery space."""
    title = _plain(f"Gallery space {space.path}")
    table = Table(title=title, show_header=False, title_justify="left")
    codes = f" from codes ({space.vectors.coder.kind})" if isinstance(space.vectors, Codes) else ""
    rows = {
        "vectors": f"{len(space.vectors):,} × {space.dimension} {space.vectors.dtype}{codes}",
        "bytes per vector": f"{space.bytes_per_vector:,}",
        "derivation": "; ".join(_step(step) for step in space.manifest.derivation) or "none",
        "metric": space.metric,
        "classes": f"{len(space.classes):,}" if space.classes else "none",
        "model": space.manifest.model or "unknown (imported vectors)",
        "MACs of the gallery model": format_macs(space.manifest.model_macs)
        if space.manifest.model_macs
        else "unknown",
        "preprocessing": str(space.preprocessing or "unknown"),
        "data": space.manifest.data or "unknown",
        "views of training images": str(space.view_recipe or "none"),
        "fingerprint": space.fingerprint,
        "shape": _shape(space),
    }
    for name, value in rows.items():
        table.add_row(name, _plain(value))
    stdout_console().print(table)


def _shape(space: GallerySpace) -> str:
    """What all vectors share, and what follows for losses."""
    rows = np.linspace(0, len(space.vectors) - 1, min(len(space.vectors), _LOOKED_AT), dtype=int)
    if len(rows) < 2:
        return "unknown (one vector)"
    found = shape(np.asarray(space.vectors[rows], dtype=np.float32))
    follows = (
        "a cone: what all vectors share is a large part of every cosine, so some losses see "
        "vectors from their mean"
        if found.conical
        else "no cone: centring changes little"
    )
    return (
        f"mean cosine {found.mean_cosine:.2f}, effective rank {found.effective_rank:.0f} of "
        f"{space.dimension} ({follows})"
    )


def _plain(text: str) -> Text:
    """Words of a file of anybody, which neither mark up nor steer the terminal."""
    return Text("".join(c if c.isprintable() else "�" for c in text))


def _step(step: Mapping[str, Any]) -> str:
    """One line on a step of a derivation."""
    options = ", ".join(f"{k} {v}" for k, v in step.items() if k not in ("step", "sources"))
    sources = " + ".join(source["gallery"] for source in step["sources"])
    return f"{step.get('step', 'derived')} of {sources} ({options})"


def front_rows(
    records: Sequence[Record], ties: Ties, *, gallery_macs: int | None
) -> list[dict[str, Any]]:
    """Return the front as plain rows."""
    return [
        {
            "trial": r.trial,
            "route": r.route,
            "fidelity": r.fidelity,
            "resolution": r.resolution,
            "macs": r.macs,
            "gallery_macs_share": r.macs / gallery_macs if gallery_macs else None,
            "parameters": r.parameters,
            **{each.name: r.costs.get(each.name) for each in COSTS if not each.always},
            "val_cross_test": r.cross_test,
            "val_agreement": r.agreement,
            "val_overlap": r.overlap,
            "val_interval_low": r.interval[0],
            "val_interval_high": r.interval[1],
            "val_self_test": r.self_test,
            "val_product": r.product,
            "val_paragon": r.paragon,
            **_gain_row(ties, r.trial),
            "architecture": dict(r.architecture.params),
        }
        for r in records
    ]


def _gain_row(ties: Ties, trial: int) -> dict[str, Any]:
    """What a member of the front gains over a cheaper one; nothing for the cheapest."""
    gain = ties.gains.get(trial)
    names = ("compared_with", "gain", "gain_low", "gain_high", "gain_p_value")
    if gain is None:
        return {"tied_with": None, **dict.fromkeys(names)}
    difference = gain.difference
    values = (gain.over, difference.mean, *difference.interval, difference.p_value)
    return {"tied_with": ties.tied_with(trial), **dict(zip(names, values, strict=True))}


def print_front(run: Run, records: Sequence[Record], ties: Ties) -> None:
    """Print a Pareto front, or the part of it that meets bounds."""
    gallery_macs = run.data.gallery.manifest.model_macs
    table = Table(
        title=f"Pareto front of {run.path} on the validation {run.data.unseen}",
        title_justify="left",
    )
    accuracy = ACCURACY[run.data.judge]
    shown = {*_SHOWN, accuracy.name}
    further = [OBJECTIVES[name] for name in run.config.objectives if name not in shown]
    for name, justify in (*_COLUMNS, *((each.words, "right") for each in further)):
        heading = accuracy.words if name == "accuracy" else name
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for r in records:
        table.add_row(
            str(r.trial),
            r.route,
            r.fidelity,
            str(r.resolution),
            format_macs(r.macs),
            f"1/{gallery_macs / r.macs:.0f}" if gallery_macs else "?",
            format_macs(r.parameters),
            f"{r.accuracy:.4f}",
            f"{r.interval[0]:.3f}–{r.interval[1]:.3f}",
            _tied_with(ties, r.trial),
            "–" if r.self_test is None else f"{r.self_test:.4f}",
            f"{r.accuracy / r.paragon:.1%}",
            *(each.text(r.value(each)) for each in further),
        )
    console = stdout_console()
    console.print(table)
    if records:
        _print_tiers(console, records, run.config.tiers)
        console.print(ties.words(run.path), soft_wrap=True)
        part = run.data.unseen
        console.print(f"Paragon mAP on the validation {part}: {records[0].paragon:.4f}")
        console.print(f"`querynas export` and `querynas report` measure on the test {part}.")
    else:
        console.print("No model of the front meets these bounds.")


def _print_tiers(console: Console, records: Sequence[Record], tiers: Sequence[int]) -> None:
    for tier, best in best_within(records, tiers).items():
        found = "nothing" if best is None else f"trial {best.trial}, {best.accuracy:.4f}"
        console.print(f"Within {format_macs(tier)} MACs: {found}")


_COLUMNS = (
    ("trial", "right"),
    ("space", "left"),
    ("weights", "left"),
    ("px", "right"),
    ("MACs", "right"),
    ("of gallery", "right"),
    ("params", "right"),
    ("accuracy", "right"),
    ("95% interval", "right"),
    ("tied with", "right"),
    ("self-test", "right"),
    ("of paragon", "right"),
)


_SHOWN = ("macs", "parameters", "self_test")


def _tied_with(ties: Ties, trial: int) -> str:
    if ties.unknown:
        return "?"
    tied = ties.tied_with(trial)
    return "" if tied is None else str(tied)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write plain rows as CSV."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def evaluation_rows(done: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain JSON-able values, by protocol and test."""
    return {
        "model": str(done.path),
        "gallery_fingerprint": done.fingerprint,
        "protocols": {
            name: {
                test: {"map": part.map, "interval": list(part.interval), "recall": part.recall}
                for test, part in (
                    ("self_test", score.self_test),
                    ("cross_test", score.cross_test),
                    ("paragon", score.paragon),
                )
            }
            for name, score in done.scores.items()
        },
    }


def print_evaluation(done: Evaluation) -> None:
    """Print self-test, cross-test and paragon."""
    for name, score in done.scores.items():
        table = Table(title=f"{done.path} on {name}", title_justify="left")
        for column in ("test", "mAP", "95% interval", "R@1", "R@5", "R@10"):
            table.add_column(column, justify="left" if column == "test" else "right")
        for test, part in (
            ("self-test M(q,q)", score.self_test),
            ("cross-test M(q,g)", score.cross_test),
            ("paragon M(g,g)", score.paragon),
        ):
            low, high = part.interval
            recalls = [f"{part.recall[k]:.4f}" for k in (1, 5, 10)]
            table.add_row(test, f"{part.map:.4f}", f"{low:.3f}–{high:.3f}", *recalls)
        stdout_console().print(table)


def print_profile(done: Profile) -> None:
    """Print MACs by layer and the totals."""
    shape = "×".join(str(n) for n in done.input)
    table = Table(title=f"{done.model}, input {shape}", title_justify="left")
    table.add_column("layer")
    table.add_column("MACs", justify="right")
    table.add_column("share", justify="right")
    for name, macs in done.layers.items():
        table.add_row(name or "(itself)", format_macs(macs), f"{macs / (done.macs or 1):.1%}")
    console = stdout_console()
    if done.layers:
        console.print(table)
    total = "unknown for ONNX, see the card" if done.macs is None else format_macs(done.macs)
    console.print(f"FLOPs (multiply-accumulates, MACs): {total}")
    console.print(f"Parameters: {format_macs(done.parameters)}")
    if done.activations is not None:
        console.print(f"Activations: {format_macs(done.activations)}")
    if done.int8_bytes is not None:
        console.print(f"Weights in int8: {format_macs(done.int8_bytes)}B")
    console.print(f"Latency: {done.latency * 1e3:.2f} ms (median, batch of 1, one CPU thread)")
