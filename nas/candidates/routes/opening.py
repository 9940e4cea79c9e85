"""The route that an entry of a study file describes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nas.candidates.routes.pruned import PrunedRoute
from nas.candidates.routes.route import Route
from nas.candidates.routes.standalone import StandaloneRoute
from nas.candidates.routes.supernet import SupernetRoute
from nas.config.study import RouteConfig
from searchspaces.support.errors import QuerynasError

_KINDS: Mapping[str, Callable[[str, Any, int], Route]] = {
    "supernet": SupernetRoute,
    "pruned": PrunedRoute,
    "standalone": StandaloneRoute,
}


def create_route(name: str, config: RouteConfig, dimension: int) -> Route:
    """Return the route that a study file describes.

    Raises:
        SearchSpaceError, PruningError: The space's options do not fit; names the study file's
            section.
    """
    with section(name):
        return _KINDS[config.route](name, config, dimension)


@contextmanager
def section(name: str) -> Iterator[None]:
    """Have every refusal name the section of the study file that it is about."""
    try:
        yield
    except QuerynasError as error:
        raise type(error)(f"`spaces.{name}`: {error}") from error
