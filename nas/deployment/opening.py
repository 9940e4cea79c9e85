"""The query model that a user names: a network of timm, or a saved one."""

from nas.errors import StudyError
from pruning import load_model
from searchspaces import QueryModel, first_levels, own_resolution, timm_query_model
from searchspaces.support.seeding import seeded


def is_saved(model: str) -> bool:
    """Whether a name is that of a saved model; all others are of timm."""
    return model.endswith(".safetensors")


def open_query_model(
    model: str,
    dimension: int,
    *,
    resolution: int | None = None,
    pooling: str = "avg",
    levels: int | None = None,
    pretrained: bool = True,
    checkpoint: str | None = None,
    seed: int = 0,
) -> QueryModel:
    """Open the query model that a user names.

    Args:
        model: ``timm:NAME``, ``NAME``, or a .safetensors file of ours.
        dimension: Number of dimensions of the gallery space.
        resolution: Side of the square images in pixels; None for the model's own.
        pooling: As for `timm_query_model`.
        levels: How many of the first levels of a timm backbone its features are pooled from, and
            after which it ends; None for those that the family's classifier sees.
        pretrained: As for `timm_query_model`.
        checkpoint: As for `timm_query_model`.
        seed: For what starts at random.

    Raises:
        StudyError: A saved model has another dimension or another resolution, or weights or levels
            are given for it.
        PruningError: The file is missing or damaged.
        SearchSpaceError: timm has no such model, it does not take these images, or it has not so
            many levels.
    """
    if not is_saved(model):
        name = model.removeprefix("timm:")
        with seeded(seed):
            return timm_query_model(
                name,
                dimension,
                resolution=resolution or own_resolution(name),
                pooling=pooling,
                levels=first_levels(name, levels),
                pretrained=pretrained,
                checkpoint=checkpoint,
            )
    found = open_saved(model, resolution=resolution, levels=levels, checkpoint=checkpoint)
    if found.dimension != dimension:
        raise StudyError(
            f"The model '{model}' gives {found.dimension} dimensions, but the gallery has "
            f"{dimension}; give a model that was aligned to this gallery."
        )
    return found


def open_saved(
    model: str,
    *,
    resolution: int | None = None,
    levels: int | None = None,
    checkpoint: str | None = None,
) -> QueryModel:
    """Open a saved query model, whose resolution, levels and weights are its own.

    Raises:
        StudyError: Another resolution, a number of levels or a checkpoint is asked for.
        PruningError: The file is missing or damaged.
    """
    if checkpoint is not None:
        raise StudyError(f"The model '{model}' has weights of its own; leave --checkpoint out.")
    if levels is not None:
        raise StudyError(
            f"Only timm models can be made to end at a level, and '{model}' is a saved one; leave "
            "--levels out."
        )
    found = load_model(model)
    if resolution not in (None, found.resolution):
        raise StudyError(
            f"The model '{model}' takes images of {found.resolution} pixels, not {resolution}; "
            "leave --resolution out."
        )
    return found
