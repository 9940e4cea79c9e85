"""`querynas profile`: MACs by layer, parameters and latency of a network."""

from typing import Annotated

import typer


def profile(
    model: Annotated[str, typer.Argument(help="timm:NAME, or an exported .safetensors or .onnx.")],
    input: Annotated[
        str | None, typer.Option(help="Input as CHANNELSxHEIGHTxWIDTH, e.g. 3x224x224.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count FLOPs (as multiply-accumulates, MACs) and measure latency."""
    from nas.cli.tables import print_profile
    from nas.deployment.profiles import profile as measure

    done = measure(model, input)
    if json:
        import json as json_module
        from dataclasses import asdict

        print(json_module.dumps(asdict(done), indent=2))
    else:
        print_profile(done)
