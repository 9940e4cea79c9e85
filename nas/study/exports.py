"""Exporting a query model of a study."""

from pathlib import Path

from nas.config.budget import format_macs
from nas.deployment.card import Format, Validation
from nas.deployment.formats import FORMATS
from nas.deployment.write import Exported, Source, write_model
from nas.errors import StudyError
from nas.study.front import Record, best_within
from nas.study.run import Run


def export(run: Run, record: Record, format: Format, out: str | Path) -> Exported:
    """Write a query model of a study as one file, with a card beside it.

    Args:
        run: The study.
        record: The candidate.
        format: "safetensors", "onnx" or "torch-export", see `nas.deployment.write.write_model`.
        out: The file; it ends in .safetensors, .onnx or .pt2.

    Raises:
        StudyError: The ending does not fit the format, or as `nas.deployment.write.write_model`.
    """
    out = Path(out)
    suffix = FORMATS[format].suffix
    if out.suffix != suffix:
        raise StudyError(f"The file '{out}' must end in {suffix} for the format '{format}'.")
    source = Source(
        name=f"trial {record.trial}",
        run=run.path,
        trial=record.trial,
        architecture=record.architecture,
        route=record.route,
        fidelity=record.fidelity,
        gallery=run.config.gallery,
        data=run.config.data,
        split=run.config.split,
        validation=Validation(cross_test=record.accuracy, interval=record.interval),
    )
    return write_model(run.model(record), out, source, run.data)


def best_under(run: Run, macs: float) -> Record:
    """Return the candidate with the highest validation accuracy within a budget of MACs.

    Raises:
        StudyError: No candidate is that small.
    """
    records = run.records()
    best = best_within(records, [round(macs)])[round(macs)]
    if best is None:
        smallest = min(records, key=lambda r: r.macs, default=None)
        found = (
            "it has no scored candidate yet"
            if smallest is None
            else f"its smallest is trial {smallest.trial} with {format_macs(smallest.macs)}"
        )
        raise StudyError(
            f"The run '{run.path}' has no model under {format_macs(macs)} MACs, {found}; raise the "
            "budget or search smaller models."
        )
    return best
