from .latency_table import LatencyTable, calibrate, open_table
from .objectives import OBJECTIVES, Objective
from .predicting import predictions
from .routes import Candidate, Route, create_route

__all__ = [
    "Candidate",
    "LatencyTable",
    "OBJECTIVES",
    "Objective",
    "Route",
    "calibrate",
    "create_route",
    "open_table",
    "predictions",
]
