from .latency_table import LatencyTable, calibrate, open_table
from .predicting import predictions
from .proposal import Proposal
from .routes import Candidate, Route, create_route

__all__ = [
    "Candidate",
    "LatencyTable",
    "Proposal",
    "Route",
    "calibrate",
    "create_route",
    "open_table",
    "predictions",
]
