from .cache import default_cache
from .errors import QuerynasError
from .files import write_atomically
from .naming import did_you_mean, near_matches, suggestion
from .problems import problem_of
from .section import Section
from .seeding import seeded
from .settings import bind_settings

__all__ = [
    "QuerynasError",
    "Section",
    "bind_settings",
    "default_cache",
    "did_you_mean",
    "near_matches",
    "problem_of",
    "seeded",
    "suggestion",
    "write_atomically",
]
