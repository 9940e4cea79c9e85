"""Weights of an earlier run, to begin with."""

from pathlib import Path

from nas.errors import StudyError
from searchspaces import QueryModel
from searchspaces.support.tensors import read_safetensors

PROJECTION = "projection."
"""What the names of those tensors of a query model begin with that lead into the gallery space."""


def begin_with(model: QueryModel, start: Path) -> bool:
    """Put weights from a file in a model that is to be trained; without a projection it stays.

    Returns:
        Whether the file had a projection.

    Raises:
        StudyError: The file is damaged, lacks a tensor of the model, or has it in another shape.
    """
    state = read_safetensors(start, error=StudyError, remedy="leave out warm_start")[1]
    own = model.state_dict()
    for name, tensor in own.items():
        if name in state and state[name].shape == tensor.shape:
            continue
        if name in state or not name.startswith(PROJECTION):
            raise StudyError(
                f"The weights in '{start}' do not fit the network of this version in '{name}'; "
                "leave out warm_start."
            )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    return any(name.startswith(PROJECTION) for name in state)
