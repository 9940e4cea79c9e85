"""`querynas evaluate`: an exported query model against a gallery."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="Exported .onnx or .safetensors file.")],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")],
    data: Annotated[str, typer.Option(help="Data set whose test part is searched.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    any_gallery: Annotated[
        bool, typer.Option(help="Allow another gallery than the model was aligned to.")
    ] = False,
) -> None:
    """Measure self-test, cross-test and paragon on the test part."""
    from nas.cli.tables import evaluation_rows, print_evaluation
    from nas.deployment.evaluate import evaluate_file

    done = evaluate_file(model, gallery, data, ignore_fingerprint=any_gallery)
    if json:
        import json as json_module

        print(json_module.dumps(evaluation_rows(done), indent=2))
    else:
        print_evaluation(done)
