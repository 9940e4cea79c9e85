"""`querynas latency`: a table of block latencies of this machine, and how well it adds up."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import Seed

if TYPE_CHECKING:
    from nas.candidates.latency_table import Check, LatencyTable, SpaceOptions

app = typer.Typer(
    help="Time every block of a search space on this machine, once; then latency is a sum.",
    no_args_is_help=True,
)


class Runtime(StrEnum):
    """Where networks are to run."""

    pytorch = "pytorch"
    onnxruntime = "onnxruntime"


@app.command()
def calibrate(
    out: Annotated[Path, typer.Option(help="The table, JSON; a begun one is continued.")],
    study: Annotated[
        Path | None, typer.Option(help="Study file whose spaces are meant, and whose gallery.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Or the name of one search space.")] = None,
    options: Annotated[
        str, typer.Option(help="Options of that space as YAML, e.g. '{resolutions: [32, 48]}'.")
    ] = "{}",
    dimension: Annotated[
        int | None,
        typer.Option(min=1, max=65_536, help="Dimensions of the gallery for that space."),
    ] = None,
    runtime: Annotated[Runtime, typer.Option(help="Where networks run.")] = Runtime.pytorch,
    seed: Seed = 0,
) -> None:
    """Measure every block of a space on one CPU thread of this machine."""
    from nas.candidates.latency_table import calibrate as run_calibration
    from nas.errors import StudyError

    if study is not None and space is None:
        spaces, dimension = _of_study(study)
    elif study is None and space is not None and dimension is not None:
        spaces = [_of_options(space, options)]
    else:
        raise StudyError("Give either --study, or --space with --dimension.")
    table = run_calibration(spaces, out, dimension=dimension, runtime=runtime.value, seed=seed)
    print(f"{len(table.blocks):,} blocks on {table.measured_on}: {out}")
    print(_overhead(table))


@app.command()
def check(
    table: Annotated[Path, typer.Option(help="A table of this machine.")],
    networks: Annotated[
        int, typer.Option(min=3, max=10_000, help="Random networks to time as wholes.")
    ] = 30,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the table's sums with whole networks, none of which its overhead was fitted on."""
    from nas.candidates.latency_table import check as run_check
    from nas.candidates.latency_table import open_table

    opened = open_table(table)
    done = run_check(opened, networks=networks, seed=seed)
    if json:
        import json as json_module

        print(json_module.dumps(done.figures(), indent=2))
    else:
        _print_check(opened, done)


def _of_study(path: Path) -> tuple[list[SpaceOptions], int]:
    """The spaces of a study and the dimension of its gallery."""
    from compat.gallery import GallerySpace
    from nas.candidates.latency_table import SpaceOptions
    from nas.config.plugins import import_modules
    from nas.config.study import PrunedConfig, load_config
    from nas.errors import StudyError

    config = load_config(path)
    import_modules(config.imports)
    spaces = []
    for name, each in config.spaces.items():
        if isinstance(each, PrunedConfig):
            raise StudyError(
                f"The space '{name}' of '{path}' is cut out of a backbone, so it has no blocks of "
                "its own; take `latency` instead of `table_latency`."
            )
        spaces.append(SpaceOptions(name=each.space, options=each.options))
    return spaces, GallerySpace.open(config.gallery).dimension


def _of_options(name: str, text: str) -> SpaceOptions:
    from nas.candidates.latency_table import SpaceOptions
    from nas.cli.settings import settings
    from nas.config.yaml_text import parse_yaml
    from nas.errors import StudyError

    options = parse_yaml(text, "--options")
    if not isinstance(options, dict):
        raise StudyError(f"--options is '{text}', not a mapping such as '{{resolutions: [32]}}'.")
    return settings(SpaceOptions, {"name": name, "options": options})


def _overhead(table: LatencyTable) -> str:
    return (
        f"A whole network takes {1e3 * (table.overhead or 0):+.3f} ms beyond the sum of its "
        f"blocks (median of {len(table.fitted_on)} networks)."
    )


def _print_check(table: LatencyTable, done: Check) -> None:
    from searchspaces.timing import describe_runtime

    figures = done.figures()
    milliseconds = [1e3 * seconds for seconds in done.measured]
    print(
        f"{figures['networks']} networks of {min(milliseconds):.3g} to {max(milliseconds):.3g} ms"
    )
    print(f"Table measured on {table.measured_on}")
    print(f"Networks timed on {describe_runtime(table.runtime)}")
    print(_overhead(table))
    for name, words in (("table", "sum of the table"), ("macs", "MACs, for comparison")):
        each = figures[name]
        print(
            f"{words}: Pearson r {each['pearson']:.3f}, Spearman ρ {each['spearman']:.3f}, "
            f"Kendall τ {each['kendall']:.3f} with whole networks"
        )
    print(
        f"Relative error: mean {figures['mean_error']:.1%}, median {figures['median_error']:.1%}, "
        f"largest {figures['largest_error']:.1%}; bias {figures['bias']:+.1%}"
    )
