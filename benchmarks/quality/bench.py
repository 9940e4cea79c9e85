"""One process's data, trainings and compute."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from quality.setting import OPTIONS, Setting, space, training

from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData, load_study_data
from nas.alignment.aligner import Aligner
from searchspaces import Architecture, QueryModel, count_macs, count_parameters


class Clock:
    """Compute of this process so far, also at moments in the past."""

    def __init__(self) -> None:
        self._elapsed = time.perf_counter if torch.cuda.is_available() else time.process_time
        self._start = self._elapsed()
        self._samples: list[tuple[float, float]] = [(time.time(), 0.0)]
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> float:
        return self._elapsed() - self._start

    def at(self, moment: float) -> float:
        """Compute in seconds at a time of day."""
        moments, spent = zip(*self._samples, (time.time(), self()), strict=True)
        return float(np.interp(moment, moments, spent))

    def _watch(self) -> None:
        while True:
            time.sleep(0.2)
            self._samples.append((time.time(), self()))


def timed(score: Callable[[], Any]) -> dict[str, Any]:
    clock = Clock()
    value = score()
    return {"value": value, "seconds": clock()}


class Bench:
    """One process's data and trainings for one seed."""

    def __init__(self, setting: Setting, seed: int, side: int | None = None) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        self.setting, self.seed = setting, seed
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.data: StudyData = load_study_data(setting.data, setting.gallery, SplitConfig())
        training = self.data.training(side or max(OPTIONS["resolutions"])).to(device)
        self.aligner: Aligner = Aligner(training, self.data.val, "regression", seed, device)

    @property
    def dimension(self) -> int:
        return self.data.gallery.dimension

    def test(self, model: QueryModel) -> float:
        """Cross-test mAP on the test classes."""
        embeddings = self.data.test.embed(model)
        return self.data.test.score(embeddings).cross_test.map

    def alone(self, model: QueryModel, title: str) -> dict[str, float]:
        """Align a model with fresh weights to the end of its schedule."""
        clock = Clock()
        fitted = self.aligner.align(model, training(self.setting.epochs), title=title)
        seconds = clock()
        return {
            "macs": count_macs(model, model.resolution),
            "parameters": count_parameters(model),
            "seconds": seconds,
            "val": fitted.best,
            "test": self.test(model),
        }


def fresh(architecture: Architecture, bench: Bench) -> QueryModel:
    torch.manual_seed(bench.seed)
    return space().build(architecture, bench.dimension)
