"""`querynas search`: run or continue a search study."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def search(
    study: Annotated[Path, typer.Argument(help="Study file, YAML.")],
    out: Annotated[Path, typer.Option(help="Run folder; an existing one is continued.")],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Candidates to score, instead of the study file's."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that score and finish candidates.")
    ] = 1,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL; SQLite in the run folder by default.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, max=1e9, help="Seconds after which no candidate is begun."),
    ] = None,
) -> None:
    """Search the Pareto front of query models; the same command continues a stopped search."""
    from nas.cli.tables import print_front
    from nas.config.study import load_config
    from nas.statistics.concordance import concordance
    from nas.statistics.ties import distinguish
    from nas.study.trials import search as run_search

    try:
        run = run_search(
            load_config(study),
            out,
            trials=trials,
            workers=workers,
            storage=storage,
            timeout=timeout,
        )
    except KeyboardInterrupt:
        print(
            "\nquerynas: stopped; what was finished is kept, the same command goes on from there.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    front = run.front()
    print_front(run, front, distinguish(run, front))
    together = concordance(run.records())
    if together is not None:
        print(together)
    print(f"Run folder: {run.path} (trials in {run.storage_url})")
