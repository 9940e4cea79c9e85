"""Exact retrieval measures over streamed galleries."""

from compat.evaluation.hamming import hashing_map_at_r
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
from compat.evaluation.significance import Difference, paired_difference
from compat.evaluation.similarity import Metric
from compat.evaluation.truth import Truth

__all__ = [
    "Difference",
    "Metric",
    "Retrieved",
    "Score",
    "Truth",
    "bootstrap_interval",
    "evaluate",
    "hashing_map_at_r",
    "paired_difference",
    "positive_ranks",
    "score",
    "summarise",
    "top_k",
]
