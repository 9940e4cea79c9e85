"""What the parts left, and measures of it."""

import random
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from quality.setting import GRID, ORDERS, SEEDS, SHORT, Setting, paired, space

from nas.study.surrogate import encode, regress
from searchspaces import Architecture


@dataclass(frozen=True)
class Results:
    """What the other commands left in a folder."""

    setting: Setting
    truth: list[dict[str, Any]]

    @classmethod
    def read(cls, setting: Setting) -> "Results":
        return cls(setting, [setting.read(f"truth-{i:03d}") for i in range(setting.count)])

    def ways(self) -> dict[str, tuple[list[float], float]]:
        """Scores of the truth's architectures by the way they came, and the median compute."""
        ways = {
            "MACs": ([float(t["macs"]) for t in self.truth], 0.0),
            "parameters": ([float(t["parameters"]) for t in self.truth], 0.0),
        }
        for seed, rows in enumerate(self.by_seed("shared-{}")):
            ways[f"shared weights, supernet {seed}"] = scores_of(rows)
            for title, name in (
                ("projection as trained", "as trained"),
                (f"then {SHORT} epoch", "aligned"),
            ):
                ways[f"the same, {title}, {seed}"] = scores_of([row[name] for row in rows])
        for seed in range(len(self.by_seed("scores-{}"))):
            ways[f"surrogate of search {seed}"] = (self.surrogate(seed), 0.0)
        names = [f"rung-{i:03d}" for i in range(self.setting.count)]
        if not all(self.setting.file(name).exists() for name in names):
            return ways
        rows = [self.setting.read(name) for name in names]
        ways[f"{SHORT} epoch alone"] = scores_of([row["alone"] for row in rows])
        spent = statistics.median(row["predictors"]["seconds"] for row in rows)
        for name in rows[0]["predictors"]["value"]:
            if name not in ("macs", "parameters"):
                values = [row["predictors"]["value"][name] for row in rows]
                ways[f"predictor {name}"] = (values, spent)
        return ways

    def costs(self) -> list[dict[str, float]]:
        """Compute of trainings alone and of scores on shared weights, timed side by side."""
        names = [f"cost-{i:03d}" for i in paired(self.setting.count)]
        return [self.setting.read(name) for name in names if self.setting.file(name).exists()]

    def surrogate(self, seed: int) -> list[float]:
        """Scores predicted from those that a search gave to other architectures."""
        rows = [r for r in self.setting.read(f"scores-{seed}") if r["parent"] is None]
        known = [Architecture("mbconv", row["params"]) for row in rows]
        new = [Architecture("mbconv", row["params"]) for row in self.truth]
        features = encode(space(), [*known, *new], self.setting.dimension)
        mean, _ = regress(
            features[: len(known)], [row["val"] for row in rows], features[len(known) :]
        )
        return [float(value) for value in mean]

    def fronts(self) -> dict[str, list[list[dict[str, Any]]]]:
        """By way of searching and by seed: models with the compute after which they came."""
        rng = random.Random(0)
        found = {
            "ours": self.by_seed("front-ours-{}"),
            "NSGA-II on shared weights": self.by_seed("front-nsga2-{}"),
        }
        trained = (self.numbered(f"grid-{seed}-{{:02d}}", len(GRID)) for seed in SEEDS)
        found["grid of timm models"] = [one_by_one(rows) for rows in trained if rows]
        orders = [rng.sample(self.truth, len(self.truth)) for _ in range(ORDERS)]
        found["random, trained alone"] = [one_by_one(each) for each in orders]
        return {name: seeds for name, seeds in found.items() if seeds}

    def by_seed(self, name: str) -> list[Any]:
        """What is there of a file for each seed."""
        return self.numbered(name, len(SEEDS))

    def numbered(self, name: str, count: int) -> list[Any]:
        names = [name.format(number) for number in range(count)]
        return [self.setting.read(each) for each in names if self.setting.file(each).exists()]


def scores_of(rows: list[dict[str, Any]]) -> tuple[list[float], float]:
    """Scores, and their median compute."""
    return [row["value"] for row in rows], statistics.median(row["seconds"] for row in rows)


def one_by_one(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Models that are trained one after the other, with the compute after which they came."""
    spent = 0.0
    found = []
    for row in rows:
        spent += row["seconds"]
        found.append({**row, "seconds": spent})
    return found


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Pareto front by validation score, by MACs."""
    found: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["macs"], -r["val"])):
        if not found or row["val"] > found[-1]["val"]:
            found.append(row)
    return found


def best_within(rows: list[dict[str, Any]], macs: float, score: str = "test") -> float:
    """Score of what the front offers within a budget; 0 for nothing."""
    return max((row[score] for row in rows if row["macs"] <= macs), default=0.0)


def hypervolume(
    rows: list[dict[str, Any]], reach: tuple[float, float], score: str = "test"
) -> float:
    """Area under the front's scores over log-MACs, as a share of the range of MACs.

    That is the mean score of the best model within a budget, over budgets of the range.
    """
    budgets = np.geomspace(*reach, 512)
    return float(np.mean([best_within(rows, macs, score) for macs in budgets]))
