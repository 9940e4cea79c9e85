from .cross_tests import CrossTests, cross_tests
from .report import report

__all__ = [
    "CrossTests",
    "cross_tests",
    "report",
]
