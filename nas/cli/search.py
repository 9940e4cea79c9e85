"""`querynas search`: run or continue a search study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.options import By, Unlabelled
from nas.errors import StudyError

if TYPE_CHECKING:
    from nas.config.study import StudyConfig

_ENDINGS = (".yaml", ".yml", ".json")


def search(
    study: Annotated[
        str, typer.Argument(help="Study file, YAML; or a timm backbone, with --data and --gallery.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder; an existing one is continued.")],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Candidates to score, instead of the study file's."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Processes that score and finish candidates; by default one for each idle core.",
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL; SQLite in the run folder by default.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, max=1e9, help="Seconds after which no candidate is begun."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data set, whose images have vectors in the gallery."),
    ] = None,
    gallery: Annotated[Path | None, typer.Option(help="Gallery folder.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File with the backbone's weights; timm's own by default.")
    ] = None,
    max_macs: Annotated[
        str | None,
        typer.Option(
            help="Most MACs of a query, e.g. 50M; by default a third of the gallery model's."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Epochs of the last trainings; by default few.",
        ),
    ] = None,
    by: By = None,
    unlabelled: Unlabelled = [],  # noqa: B006
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Of the split and of all draws, 0 by default."),
    ] = None,
) -> None:
    """Search the Pareto front of query models; the same command continues a stopped search.

    What is searched stands in a study file. With a backbone in its place, --data to --seed say it.
    """
    from compat.tasks.unlabelled import UnlabelledConfig
    from nas.cli.settings import settings, unlabelled_of
    from nas.cli.tables import print_front
    from nas.statistics.concordance import concordance
    from nas.statistics.ties import distinguish
    from nas.study.processes import room
    from nas.study.trials import search as run_search

    further = [settings(UnlabelledConfig, each) for each in unlabelled_of(unlabelled)]
    config = _config(
        study,
        {
            "data": data,
            "gallery": gallery,
            "checkpoint": checkpoint,
            "max-macs": max_macs,
            "epochs": epochs,
            "by": by,
            "unlabelled": further or None,
            "seed": seed,
        },
    )
    try:
        run = run_search(
            config,
            out,
            trials=trials,
            workers=workers or room(),
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


def _config(study: str, options: dict[str, Any]) -> StudyConfig:
    """Read the study file, or make the study of a backbone.

    Raises:
        StudyError: Options of a backbone stand beside a study file; or data or gallery are missing.
    """
    from compat.tasks.split import SplitConfig
    from nas.config.study import load_config
    from nas.recipes.starting import backbone_study

    given = {name: value for name, value in options.items() if value is not None}
    if study.endswith(_ENDINGS) or Path(study).is_file():
        if given:
            raise StudyError(
                f"--{next(iter(given))} is for a study without a file; write it into '{study}'."
            )
        return load_config(study)
    for name in ("data", "gallery"):
        if name not in given:
            raise StudyError(
                f"'{study}' is no study file: give one, or with a timm backbone --data and "
                f"--gallery; --{name} is missing."
            )
    by, seed = given.pop("by", None), given.get("seed", 0)
    fields = {name.replace("-", "_"): value for name, value in given.items()}
    return backbone_study(study, split=SplitConfig(by=by, seed=seed), **fields)
