"""`querynas export`: a query model of a study as a file with its card."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import TrustImports


class Format(StrEnum):
    """File formats of exported query models."""

    safetensors = "safetensors"
    onnx = "onnx"
    torch_export = "torch-export"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="File to write; its card goes beside it.")],
    format: Annotated[Format, typer.Option(help="File format.")] = Format.onnx,
    trial: Annotated[int | None, typer.Option(min=0, help="Number of the trial.")] = None,
    best_under: Annotated[
        str | None, typer.Option(help="Best model within a budget of MACs, e.g. 50M.")
    ] = None,
    trust_imports: TrustImports = False,
) -> None:
    """Export one query model, checked against PyTorch, with its scores on the test classes."""
    from nas.config.budget import format_macs, parse_macs
    from nas.config.objectives import ACCURACY
    from nas.errors import StudyError
    from nas.study.baselines import better_without_training
    from nas.study.exports import best_under as find_best
    from nas.study.exports import export as write
    from nas.study.run import Run

    if (trial is None) == (best_under is None):
        raise StudyError("Say which model to export: give either --trial or --best-under.")
    opened = Run.open(run, trust_imports=trust_imports)
    record = (
        opened.record(trial)
        if trial is not None
        else find_best(opened, parse_macs(best_under or ""))
    )
    done = write(opened, record, format.value, out)
    scores, words = done.card.scores, ACCURACY[done.card.judge].words
    baseline = better_without_training(record, opened.records())
    print(f"Exported trial {record.trial} ({format_macs(record.macs)} MACs) to {done.path}")
    print(f"Card: {done.card_path}")
    print(f"Largest difference from PyTorch: {done.max_difference:.2e}")
    if baseline is not None:
        print(
            f"On the validation {opened.data.unseen} its {words} {record.accuracy:.4f} is below "
            f"the {baseline.accuracy:.4f} of trial {baseline.trial}, a pretrained backbone at "
            f"{baseline.resolution} px without any training, with {format_macs(baseline.macs)} MACs"
        )
    print(
        f"Test {opened.data.unseen}: {words} mAP {scores.cross_test.map:.4f}, "
        f"self-test {scores.self_test.map:.4f}, paragon {scores.paragon.map:.4f}"
    )
