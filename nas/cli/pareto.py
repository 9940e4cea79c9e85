"""`querynas pareto`: the front of a study as a table, JSON or CSV."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import TrustImports


def pareto(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    max_macs: Annotated[
        str | None,
        typer.Option("--max-macs", "--max-flops", help="Budget of MACs, e.g. 50M."),
    ] = None,
    min_map: Annotated[float | None, typer.Option(help="Least validation mAP.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write a CSV file.")] = None,
    trust_imports: TrustImports = False,
) -> None:
    """List the Pareto front, and which of its models are not distinguishable from cheaper ones."""
    from nas.cli.tables import front_rows, print_front, write_csv
    from nas.config.budget import parse_macs
    from nas.statistics.ties import distinguish
    from nas.study.front import select
    from nas.study.run import Run

    opened = Run.open(run, trust_imports=trust_imports)
    front = opened.front()
    ties = distinguish(opened, front)
    budget = None if max_macs is None else parse_macs(max_macs)
    records = select(front, max_macs=budget, min_map=min_map)
    rows = front_rows(records, ties, gallery_macs=opened.data.gallery.manifest.model_macs)
    if csv is not None:
        write_csv(csv, rows)
    if json:
        import json as json_module

        if ties.unknown:
            print(f"querynas: {ties.words(opened.path)}", file=sys.stderr)
        print(json_module.dumps(rows, indent=2))
    else:
        print_front(opened, records, ties)
