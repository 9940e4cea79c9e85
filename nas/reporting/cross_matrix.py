"""Every model as query side against every model as gallery side."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from compat.evaluation import evaluate
from compat.tasks.retrieval import RetrievalTask
from nas.reporting.figures import ACCENT, styled

GALLERY = "gallery"


@dataclass(frozen=True, eq=False)
class CrossTests:
    """Mean average precisions between several models and the fixed gallery.

    Attributes:
        names: Of the models, the fixed gallery last.
        maps: float64 (n, n): `maps[i, j]` where model i embeds the queries and model j the images
            that are searched. The diagonal are self-tests, the last column the models' cross-tests
            with the fixed gallery, its last entry the paragon.
    """

    names: tuple[str, ...]
    maps: np.ndarray

    def with_gallery(self, name: str) -> float:
        """Cross-test of a model with the fixed gallery."""
        return float(self.maps[self.names.index(name), -1])


def cross_tests(task: RetrievalTask, embeddings: Mapping[str, np.ndarray]) -> CrossTests:
    """Measure every pair of models, and each with the fixed gallery, on one part of the data.

    Args:
        task: The queries, the images that are searched, and their gallery vectors.
        embeddings: By name of the model, its vectors of the task's images, float32 (N, d).
    """
    sides = {**embeddings, GALLERY: task.vectors}
    queries, gallery = task.retrieval.queries, task.retrieval.gallery
    maps = [
        [
            evaluate(asks[queries], answers[gallery], task.truth, metric=task.metric).map
            for answers in sides.values()
        ]
        for asks in sides.values()
    ]
    return CrossTests(tuple(sides), np.array(maps))


def heatmap(tests: CrossTests) -> go.Figure:
    """Plot cross-tests as a matrix: query side downwards, gallery side to the right."""
    figure = go.Figure(
        go.Heatmap(
            z=tests.maps,
            x=list(tests.names),
            y=list(tests.names),
            colorscale=[[0, "rgba(47,125,225,0.05)"], [1, ACCENT]],
            texttemplate="%{z:.3f}",
            xgap=2,
            ygap=2,
            colorbar={"title": "mAP"},
            hovertemplate="queries: %{y}<br>searched: %{x}<br>mAP %{z:.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="searched images embedded by", type="category", side="top")
    figure.update_yaxes(title="queries embedded by", type="category", autorange="reversed")
    figure = styled(figure, height=140 + 60 * len(tests.names))
    return figure.update_layout(margin={"l": 90, "r": 20, "t": 70, "b": 30})
