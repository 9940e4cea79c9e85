from .inheriting import PROJECTION
from .opening import create_route, section
from .pruned import PrunedRoute
from .route import Candidate, Retraining, Route
from .standalone import StandaloneRoute
from .supernet import SupernetRoute

__all__ = [
    "Candidate",
    "PROJECTION",
    "PrunedRoute",
    "Retraining",
    "Route",
    "StandaloneRoute",
    "SupernetRoute",
    "create_route",
    "section",
]
