"""Make a query model again from the description that it carries."""

from collections.abc import Mapping
from typing import Any

from searchspaces.architecture import Architecture
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import QueryModel, timm_query_model
from searchspaces.space import create_space


def rebuild(origin: Mapping[str, Any]) -> QueryModel:
    """Make the network that a `QueryModel.origin` describes, with fresh weights.

    Args:
        origin: {"timm": options of `timm_query_model`}, or {"space": {"name", "options"},
            "params", "dimension"}.

    Raises:
        SearchSpaceError: If the description is of neither kind, or names what is not there.
    """
    match origin:
        case {"timm": dict(options)}:
            return timm_query_model(**options, pretrained=False)
        case {
            "space": {"name": name, "options": options},
            "params": params,
            "dimension": dimension,
        }:
            return create_space(name, **options).build(Architecture(name, params), dimension)
    raise SearchSpaceError(
        f"a query model's origin names 'timm' or 'space', but this one has {sorted(origin)}"
    )
