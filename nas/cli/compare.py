"""`querynas compare`: two exported query models against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from nas.deployment.compare import Comparison


def compare(
    first: Annotated[
        Path, typer.Argument(metavar="MODEL_A", help="Exported .onnx or .safetensors file.")
    ],
    second: Annotated[Path, typer.Argument(metavar="MODEL_B", help="Another.")],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")],
    data: Annotated[str, typer.Option(help="Data set whose test part is searched.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    any_gallery: Annotated[
        bool, typer.Option(help="Allow another gallery than the models were aligned to.")
    ] = False,
) -> None:
    """Say which of two query models is better on the test classes, and whether that is sure."""
    from nas.deployment.compare import compare_files

    done = compare_files(first, second, gallery, data, ignore_fingerprint=any_gallery)
    if json:
        import json as json_module

        print(json_module.dumps(_rows(done), indent=2))
    else:
        _print(done)


def _rows(done: Comparison) -> dict[str, Any]:
    """A comparison as plain JSON-able values."""
    from nas.cli.tables import evaluation_rows
    from nas.deployment.compare import criteria_of

    models = []
    for evaluation, agreement in done.models:
        rows = evaluation_rows(evaluation)
        for name, score in evaluation.scores.items():
            rows["protocols"][name]["criteria"] = criteria_of(score).as_dict()
        models.append({**rows, "agreement": agreement.as_dict()})
    return {
        "first": models[0],
        "second": models[1],
        "differences": {
            name: {**difference.as_dict(), "verdict": done.verdict(name)}
            for name, difference in done.differences.items()
        },
    }


def _print(done: Comparison) -> None:
    """A table of tests and a verdict per protocol, and a table of agreement."""
    from nas.cli.tables import stdout_console

    console = stdout_console()
    for protocol, difference in done.differences.items():
        console.print(_tests(done, protocol))
        low, high = difference.interval
        console.print(
            f"Difference of the cross-tests: {difference.mean:+.4f} (95% interval {low:+.4f} to "
            f"{high:+.4f}, p = {difference.p_value:.4f}, {difference.queries} queries)"
        )
        console.print(done.verdict(protocol))
    console.print(_agreements(done))
    console.print(
        "BCT: M(q,g) > M(g,g). CMP-NAS: M(q,g) > M(q,q). Update gain: the share of the way from "
        "M(q,q) to M(g,g). A CKA of 1 is no proof of compatibility."
    )


def _tests(done: Comparison, protocol: str) -> Table:
    from rich.table import Table

    from nas.deployment.compare import criteria_of

    table = Table(title=f"Test part, {protocol}", title_justify="left")
    table.add_column("model")
    for column in _TESTS:
        table.add_column(column, justify="right")
    for evaluation, _ in done.models:
        score = evaluation.scores[protocol]
        met = criteria_of(score)
        low, high = score.cross_test.interval
        table.add_row(
            str(evaluation.path),
            f"{score.cross_test.map:.4f}",
            f"{low:.3f}–{high:.3f}",
            f"{score.self_test.map:.4f}",
            f"{score.paragon.map:.4f}",
            "yes" if met.bct else "no",
            "yes" if met.cmp_nas else "no",
            "undefined" if met.update_gain is None else f"{met.update_gain:.3f}",
        )
    return table


_TESTS = ("cross-test", "95% interval", "self-test", "paragon", "BCT", "CMP-NAS", "update gain")


def _agreements(done: Comparison) -> Table:
    from rich.table import Table

    table = Table(title="Agreement with the gallery model", title_justify="left")
    table.add_column("metric")
    for evaluation, _ in done.models:
        table.add_column(str(evaluation.path), justify="right")
    first, second = (agreement.as_dict() for agreement in done.agreements)
    for name, value in first.items():
        shape = ".4f" if isinstance(value, float) else "d"
        table.add_row(name.replace("_", " "), f"{value:{shape}}", f"{second[name]:{shape}}")
    return table
