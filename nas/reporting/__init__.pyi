from .cross_matrix import CrossTests, cross_tests
from .page import report

__all__ = [
    "CrossTests",
    "cross_tests",
    "report",
]
