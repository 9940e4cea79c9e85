"""Exact retrieval measures over streamed galleries."""

from compat.evaluation.ranking import positive_ranks
from compat.evaluation.retrieval import (
    Retrieved,
    Score,
    bootstrap_interval,
    evaluate,
    score,
    summarise,
    top_k,
)
from compat.evaluation.truth import Truth

__all__ = [
    "Retrieved",
    "Score",
    "Truth",
    "bootstrap_interval",
    "evaluate",
    "positive_ranks",
    "score",
    "summarise",
    "top_k",
]
