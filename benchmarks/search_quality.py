"""How well a search finds the true front: rungs against the truth, and fronts at equal compute.

    python benchmarks/search_quality.py all   --data D --gallery G --out bench/search
    python benchmarks/search_quality.py table --out bench/search

`all` does in turn, and each can be asked for alone:

- `truth` trains architectures of one search space alone, from random weights to the end of their
  schedule: half of them drawn uniformly, half spread evenly over the logarithm of MACs.
- `ours` lets our search run: a supernet, NSGA-II on shared weights, two rungs of alignment.
- `slices` and `rungs` score the truth's architectures on the shared weights of these searches, and
  in every other cheaper way, to see how well each orders them.
- `shared` lets NSGA-II run on the same supernets for as long as our search took, and no ladder.
- `alone` trains the architectures of the fronts that our search found again, from random weights.
- `grid` trains timm models of growing size.

Random architectures that are trained alone are drawn from the truth and cost nothing here. `table`
prints and draws what the others left.

Everything is selected on validation classes and compared on test classes. Compute is the time of
one CPU core (on a GPU, elapsed time). Every finished piece leaves a file, so that a killed run
continues where it was.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

sys.path = [each for each in sys.path if Path(each) != Path(__file__).parent]  # not this `pruning`

if TYPE_CHECKING:
    from nas.config import StudyConfig, TrainingConfig
    from nas.run import Run
    from nas.task import StudyData
    from searchspaces import Architecture, ElasticSpace, QueryModel

OPTIONS: dict[str, Any] = {
    "resolutions": [20, 24, 32],
    "stem_widths": [8, 16],
    "stem_strides": [2],
    "stages": [
        {"widths": [8, 16], "depths": [1], "expansions": [1, 2], "kernels": [3], "strides": [1, 2],
         "activation": "relu"},
        {"widths": [16, 24], "depths": [1, 2], "expansions": [2, 3], "kernels": [3],
         "strides": [2]},
        {"widths": [24, 32, 40], "depths": [1, 2, 3], "expansions": [2, 3], "kernels": [3, 5],
         "strides": [1, 2]},
        {"widths": [40, 48, 64], "depths": [1, 2], "expansions": [2, 3], "kernels": [3, 5],
         "strides": [1, 2]},
    ],
    "head_widths": [96, 128, 192],
}  # fmt: skip
SPACE = "bench"  # the space's name in study files
GRID = [
    ("lcnet_035", 32),
    ("mobilenetv3_small_050", 32),
    ("test_byobnet", 32),
    ("mobilenetv2_035", 32),
    ("mobilenetv3_small_075", 32),
    ("mobilenetv3_small_050", 64),
    ("lcnet_035", 64),
    ("test_resnet", 32),
    ("lcnet_050", 64),
    ("mobilenetv3_small_075", 64),
    ("test_byobnet", 64),
    ("mobilenetv2_035", 64),
]  # timm name and side of the input in pixels, by MACs
SEEDS = (0, 1, 2)
ORDERS = 200  # in which random search could have trained the truth
COLOURS = ("#2f7de1", "#e08a00", "#d1588f", "#9aa0a8")
SHORT = 1  # epochs of a short alignment
FIRST = 60  # candidates by which the compute of one is known


@dataclass(frozen=True)
class Setting:
    """What all parts share; the defaults of the command line are sized for two CPU cores.

    Attributes:
        count: Architectures of the truth.
        epochs: Of every full alignment.
        supernet_epochs: Of a supernet's training.
        candidates: That our search scores on shared weights.
        short: Of these, how many it aligns for `SHORT` epoch.
        full: Of these, how many it aligns for `epochs`.
        budget: Seconds of compute that every search may spend.
    """

    data: str
    gallery: str
    out: str
    count: int
    epochs: int
    supernet_epochs: int
    candidates: int
    short: int
    full: int
    budget: float

    def file(self, name: str) -> Path:
        return Path(self.out) / f"{name}.json"

    @property
    def dimension(self) -> int:
        from compat.gallery import GallerySpace

        return GallerySpace.open(self.gallery).dimension

    def read(self, name: str) -> Any:
        return json.loads(self.file(name).read_text())


class Clock:
    """Compute of this process so far, also at moments in the past."""

    def __init__(self) -> None:
        import torch

        self._elapsed = time.perf_counter if torch.cuda.is_available() else time.process_time
        self._start = self._elapsed()
        self._samples: list[tuple[float, float]] = [(time.time(), 0.0)]
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> float:
        return self._elapsed() - self._start

    def at(self, moment: float) -> float:
        """Compute in seconds at a time of day."""
        import numpy as np

        moments, spent = zip(*self._samples, (time.time(), self()), strict=True)
        return float(np.interp(moment, moments, spent))

    def _watch(self) -> None:
        while True:
            time.sleep(0.2)
            self._samples.append((time.time(), self()))


class Bench:
    """One process's data and trainings for one seed."""

    def __init__(self, setting: Setting, seed: int, side: int | None = None) -> None:
        import torch

        from nas.align import Aligner
        from nas.config import SplitConfig
        from nas.task import load_study_data

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

    def test(self, model: "QueryModel") -> float:
        """Cross-test mAP on the test classes."""
        embeddings = self.data.test.embed(model, model.resolution, self.aligner.device)
        return self.data.test.score(embeddings).cross_test.map

    def alone(self, model: "QueryModel", title: str) -> dict[str, float]:
        """Align a model with fresh weights to the end of its schedule."""
        from searchspaces import count_macs, count_parameters

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


def training(epochs: int) -> "TrainingConfig":
    from nas.config import TrainingConfig

    return TrainingConfig(epochs=epochs, validate_every=max(1, epochs // 4))


def space() -> "ElasticSpace":
    from searchspaces import ElasticSpace, create_space

    made = create_space("mbconv", **OPTIONS)
    assert isinstance(made, ElasticSpace)
    return made


def architectures(count: int, dimension: int) -> list["Architecture"]:
    """The truth's architectures: half uniform draws, half spread evenly over log-MACs."""
    import numpy as np

    made, rng = space(), random.Random(0)
    uniform = list(dict.fromkeys(made.sample(rng) for _ in range(count)))[: count // 2]
    pool = {a: made.macs(a, dimension) for a in (made.sample(rng) for _ in range(4000))}
    pool |= {a: made.macs(a, dimension) for a in (made.smallest(), made.largest())}
    spread: list[Architecture] = []
    for goal in np.geomspace(min(pool.values()), max(pool.values()), count - len(uniform)):
        left = [a for a in pool if a not in spread and a not in uniform]
        spread.append(min(left, key=lambda a: abs(np.log(pool[a] / goal))))
    return uniform + spread


def fresh(architecture: "Architecture", bench: Bench) -> "QueryModel":
    import torch

    torch.manual_seed(bench.seed)
    return space().build(architecture, bench.dimension)


def keep(file: Path, content: Any) -> None:
    from nas.files import write_atomically

    text = json.dumps(content, indent=1)
    write_atomically(file, lambda path: path.write_text(text))


def train_truth(setting: Setting, index: int) -> None:
    """Train one architecture alone."""
    file = setting.file(f"truth-{index:03d}")
    if file.exists():
        return
    bench = Bench(setting, seed=0)
    architecture = architectures(setting.count, bench.dimension)[index]
    figures = bench.alone(fresh(architecture, bench), f"architecture {index}")
    kind = "uniform" if index < setting.count // 2 else "spread"
    keep(file, {"kind": kind, "params": dict(architecture.params), **figures})


def study(setting: Setting, seed: int, *, trials: int, ladder: bool) -> "StudyConfig":
    """The study file of a search of the benchmark."""
    from nas.config import StudyConfig

    full = training(setting.epochs)
    return StudyConfig.model_validate(
        {
            "data": setting.data,
            "gallery": setting.gallery,
            "spaces": {
                SPACE: {
                    "route": "supernet",
                    "space": "mbconv",
                    "options": OPTIONS,
                    "training": {"epochs": setting.supernet_epochs, "validate_every": 4},
                }
            },
            "trials": trials,
            "start": 24,
            "seed": seed,
            "finish": [
                {"models": setting.short, "training": rate(training(SHORT))},
                {"models": setting.full, "training": rate(full)},
            ]
            if ladder
            else [],
        }
    )


def rate(config: "TrainingConfig") -> dict[str, Any]:
    """A training of weights that are in the gallery space already."""
    return {**config.model_dump(mode="json"), "lr": 1.5e-3}


def supernet(setting: Setting, seed: int) -> float:
    """Train a seed's supernet in the run folder of our search; returns its compute."""
    from nas.run import Run

    done = setting.file(f"supernet-{seed}")
    if not done.exists():
        folder = Path(setting.out) / f"ours-{seed}"
        shutil.rmtree(folder, ignore_errors=True)  # its compute counts from the start
        clock = Clock()
        run = Run.create(folder, study(setting, seed, trials=1, ladder=True))
        run.save()
        run.prepare()
        keep(done, clock())
        shutil.copytree(folder / "shared", Path(setting.out) / f"nsga2-{seed}" / "shared")
    return float(json.loads(done.read_text()))


def search_ours(setting: Setting, seed: int) -> None:
    """Our search: NSGA-II on shared weights, then two rungs of alignment."""
    file = setting.file(f"front-ours-{seed}")
    if file.exists():
        return
    from nas.study import search

    spent = supernet(setting, seed)
    clock = Clock()
    folder = Path(setting.out) / f"ours-{seed}"
    run = search(study(setting, seed, trials=setting.candidates, ladder=True), folder)
    scores = [
        {"trial": r.trial, "parent": r.parent, "val": r.cross_test, "macs": r.macs}
        | {"params": dict(r.architecture.params), "fidelity": r.fidelity}
        for r in run.records()
    ]
    keep(setting.file(f"scores-{seed}"), scores)
    keep(file, delivered(run, setting, spent, clock))


def search_shared(setting: Setting, seed: int) -> None:
    """NSGA-II on shared weights and nothing else, until the compute is spent."""
    file = setting.file(f"front-nsga2-{seed}")
    if file.exists():
        return
    from nas.study import search

    spent = supernet(setting, seed)
    folder = Path(setting.out) / f"nsga2-{seed}"
    for old in folder.glob("study.db*"):  # its compute counts from the start
        old.unlink()
    clock = Clock()
    search(study(setting, seed, trials=FIRST, ladder=False), folder)
    trials = round((setting.budget - spent) / clock() * FIRST)
    run = search(study(setting, seed, trials=trials, ladder=False), folder)
    keep(file, delivered(run, setting, spent, clock))


def delivered(run: "Run", setting: Setting, spent: float, clock: Clock) -> list[dict[str, Any]]:
    """Every model that a run ever had on its front, with when it came and its test score."""
    from optuna.trial import FrozenTrial

    bench = Bench(setting, run.config.seed)
    trials: list[FrozenTrial] = run.study.get_trials(deepcopy=False)
    rows: list[dict[str, Any]] = []
    records = sorted(run.records(), key=lambda r: trials[r.trial].datetime_complete or 0)
    for record in tqdm(records, desc="test"):
        if any(r["macs"] <= record.macs and r["val"] >= record.cross_test for r in rows):
            continue
        ended = trials[record.trial].datetime_complete
        assert ended is not None
        rows.append(
            {
                "trial": record.trial,
                "parent": record.parent,
                "fidelity": record.fidelity,
                "params": dict(record.architecture.params),
                "macs": record.macs,
                "val": record.cross_test,
                "test": bench.test(run.model(record)),
                "seconds": spent + clock.at(ended.timestamp()),
            }
        )
    return rows


def train_grid(setting: Setting, seed: int, index: int) -> None:
    """Train one timm model alone."""
    import torch

    from searchspaces import timm_query_model

    file = setting.file(f"grid-{seed}-{index:02d}")
    if file.exists():
        return
    name, side = GRID[index]
    bench = Bench(setting, seed, side=side)
    torch.manual_seed(seed)
    model = timm_query_model(name, bench.dimension, resolution=side, pretrained=False)
    keep(file, {"name": f"{name} at {side} px", **bench.alone(model, name)})


def retrain(setting: Setting, seed: int, index: int) -> None:
    """Train an architecture of the front that our search found alone, from random weights."""
    from searchspaces import Architecture

    file = setting.file(f"alone-{seed}-{index}")
    rows = setting.read(f"front-ours-{seed}")
    finished = [row for row in rows if row["fidelity"] == "finished"]
    if file.exists() or index >= len(finished):
        return
    row = finished[index]
    before = {each["trial"]: each for each in setting.read(f"scores-{seed}")}
    promised = before[before[row["parent"]]["parent"]]
    bench = Bench(setting, seed)
    model = fresh(Architecture("mbconv", row["params"]), bench)
    figures = bench.alone(model, f"front {index} alone")
    keep(file, {"promised": promised["val"], "finished": row, **figures})


def rungs(setting: Setting, first: int, step: int) -> None:
    """Score a share of the truth's architectures in all cheaper ways but shared weights."""
    from nas.predicting import predictions

    bench = Bench(setting, seed=0)
    chosen = architectures(setting.count, bench.dimension)
    run = prepared(setting, 0)
    for index in tqdm(range(first, setting.count, step), desc="rungs"):
        file = setting.file(f"rung-{index:03d}")
        if file.exists():
            continue
        model = fresh(chosen[index], bench)
        found = {
            "predictors": timed(partial(predictions, model, bench.data)),
            "alone": timed(partial(aligned, bench, model)),
        }
        model = run.routes[SPACE].candidate(chosen[index], run.aligner).model
        found["shared and aligned"] = timed(partial(aligned, bench, model, lr=1.5e-3))
        keep(file, found)


def score_shared(setting: Setting, seed: int) -> None:
    """Score all of the truth's architectures on the shared weights of one supernet."""
    file = setting.file(f"shared-{seed}")
    if file.exists():
        return
    run = prepared(setting, seed)
    chosen = architectures(setting.count, run.data.gallery.dimension)
    shared(run, chosen[0])  # the first one waits for caches
    keep(file, [timed(partial(shared, run, each)) for each in tqdm(chosen, desc="shared")])


def prepared(setting: Setting, seed: int) -> "Run":
    from nas.run import Run

    run = Run.open(Path(setting.out) / f"ours-{seed}")
    run.prepare()
    return run


def timed(score: Callable[[], Any]) -> dict[str, Any]:
    clock = Clock()
    value = score()
    return {"value": value, "seconds": clock()}


def shared(run: "Run", architecture: "Architecture") -> float:
    """Validation cross-test on shared weights."""
    return run.aligner.cross_test(run.routes[SPACE].candidate(architecture, run.aligner).model)


def aligned(bench: Bench, model: "QueryModel", lr: float = 3e-3) -> float:
    """Validation cross-test after a short alignment."""
    config = training(SHORT).model_copy(update={"lr": lr})
    return bench.aligner.align(model, config, quiet=True).best


def work(job: tuple[Callable[..., None], tuple[Any, ...]]) -> None:
    part, arguments = job
    part(*arguments)


def do(part: Callable[..., None], jobs: list[tuple[Any, ...]], processes: int) -> None:
    """Do what is not done yet, each job in a process with one thread."""
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        done = pool.imap_unordered(work, [(part, job) for job in jobs])
        for _ in tqdm(done, total=len(jobs), desc=part.__name__, unit="job"):
            pass


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
        for seed in range(len(self.by_seed("scores-{}"))):
            ways[f"surrogate of search {seed}"] = (self.surrogate(seed), 0.0)
        names = [f"rung-{i:03d}" for i in range(self.setting.count)]
        if not all(self.setting.file(name).exists() for name in names):
            return ways
        rows = [self.setting.read(name) for name in names]
        ways[f"{SHORT} epoch alone"] = scores_of([row["alone"] for row in rows])
        finer = scores_of([row["shared and aligned"] for row in rows])
        ways[f"shared weights and {SHORT} epoch"] = finer
        spent = statistics.median(row["predictors"]["seconds"] for row in rows)
        for name in rows[0]["predictors"]["value"]:
            if name not in ("macs", "parameters"):
                values = [row["predictors"]["value"][name] for row in rows]
                ways[f"predictor {name}"] = (values, spent)
        return ways

    def surrogate(self, seed: int) -> list[float]:
        """Scores predicted from those that a search gave to other architectures."""
        from nas.surrogate import encode, regress
        from searchspaces import Architecture

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
        columns = [self.by_seed(f"grid-{{}}-{i:02d}") for i in range(len(GRID))]
        found["grid of timm models"] = [
            one_by_one(list(rows)) for rows in zip(*columns, strict=False)
        ]
        orders = [rng.sample(self.truth, len(self.truth)) for _ in range(ORDERS)]
        found["random, trained alone"] = [one_by_one(each) for each in orders]
        return {name: seeds for name, seeds in found.items() if seeds}

    def by_seed(self, name: str) -> list[Any]:
        """What is there of a file for each seed."""
        names = [name.format(seed) for seed in SEEDS]
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


def best_within(rows: list[dict[str, Any]], macs: float) -> float:
    """Test score of what the front offers within a budget; 0 for nothing."""
    return max((row["test"] for row in rows if row["macs"] <= macs), default=0.0)


def hypervolume(rows: list[dict[str, Any]], reach: tuple[float, float]) -> float:
    """Area under the front's test scores over log-MACs, as a share of the range of MACs.

    That is the mean test score of the best model within a budget, over budgets of the range.
    """
    import numpy as np

    budgets = np.geomspace(*reach, 512)
    return float(np.mean([best_within(rows, macs) for macs in budgets]))


def spread(values: Sequence[float]) -> str:
    """Mean and half of the 95% t-interval of the mean."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def table(results: Results) -> None:
    from scipy.stats import kendalltau, spearmanr

    truth = [row["test"] for row in results.truth]
    cost = statistics.median(row["seconds"] for row in results.truth)
    print(f"Truth: {len(truth)} architectures, {cost:.0f} s each (median).\n")
    print("| way | Kendall τ | Spearman | uniform draws alone, τ | seconds | × cheaper |")
    print("|---" * 6 + "|")
    half = len(truth) // 2
    for name, (scores, seconds) in results.ways().items():
        cheaper = f"{cost / seconds:.0f}" if seconds else ""
        print(
            f"| {name} | {kendalltau(scores, truth).statistic:.3f} "
            f"| {spearmanr(scores, truth).statistic:.3f} "
            f"| {kendalltau(scores[:half], truth[:half]).statistic:.3f} "
            f"| {seconds:.2f} | {cheaper} |"
        )
    reach = (min(r["macs"] for r in results.truth), max(r["macs"] for r in results.truth))
    budget = results.setting.budget
    shares = (0.25, 0.5, 0.75, 1.0)
    print("\n| hypervolume of the test scores after |", end="")
    print("".join(f" {share * budget:.0f} s |" for share in shares) + " models |")
    print("|---" * (2 + len(shares)) + "|")
    for name, seeds in results.fronts().items():
        cells = []
        for share in shares:
            found = [front([r for r in rows if r["seconds"] <= share * budget]) for rows in seeds]
            volumes = [hypervolume(rows, reach) for rows in found]
            cells.append(band(volumes) if len(seeds) == ORDERS else spread(volumes))
        count = statistics.mean(len(rows) for rows in found)
        print(f"| {name} | " + " | ".join(cells) + f" | {count:.0f} |")
    true = front(results.truth)
    print(f"\nFront of the truth itself: {hypervolume(true, reach):.3f} ({len(true)} models).")
    for seed, rows in zip(SEEDS, results.by_seed("front-ours-{}"), strict=False):
        mine = front([r for r in rows if r["seconds"] <= budget])
        gaps = [row["test"] - best_within(mine, row["macs"]) for row in true]
        print(
            f"Seed {seed}: within the MACs of each true member ours offers "
            f"{-statistics.mean(gaps):+.3f} on average, {-max(gaps):+.3f} at worst."
        )
    promises(results.setting)


def store(results: Results) -> Path:
    """Write the truth and all scores of its architectures in one compact file."""
    from nas.files import write_atomically

    ways = results.ways()
    rows = [
        {
            **{name: row[name] for name in ("kind", "params", "macs", "parameters")},
            **{name: round(row[name], 4) for name in ("val", "test", "seconds")},
            "scores": {name: round(float(scores[i]), 4) for name, (scores, _) in ways.items()},
        }
        for i, row in enumerate(results.truth)
    ]
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    path = Path(results.setting.out) / "truth.json"
    write_atomically(path, lambda file: file.write_text(text))
    return path


def promises(setting: Setting) -> None:
    """How the front's architectures do when they are trained alone, against what was promised."""
    rows = [json.loads(file.read_text()) for file in Path(setting.out).glob("alone-*.json")]
    if not rows:
        return
    for name, promised in (
        ("shared weights promised", [row["promised"] for row in rows]),
        ("the ladder reached", [row["finished"]["val"] for row in rows]),
    ):
        gaps = [row["val"] - each for row, each in zip(rows, promised, strict=True)]
        print(
            f"{len(rows)} architectures of the fronts trained alone, against what {name} "
            f"(validation): {statistics.mean(gaps):+.3f} on average, mean absolute gap "
            f"{statistics.mean(map(abs, gaps)):.3f}, worst {min(gaps):+.3f}."
        )


def band(values: Sequence[float]) -> str:
    """Mean and standard deviation over random orders."""
    return f"{statistics.mean(values):.3f} (sd {statistics.stdev(values):.3f})"


def plot(results: Results) -> Path:
    """Draw hypervolume over compute, and the fronts at the end."""
    import numpy as np
    from plotly.subplots import make_subplots

    reach = (min(r["macs"] for r in results.truth), max(r["macs"] for r in results.truth))
    budget = results.setting.budget
    moments = np.linspace(0, budget, 61)[1:]
    figure = make_subplots(1, 2, horizontal_spacing=0.08)
    for (name, seeds), colour in zip(results.fronts().items(), COLOURS, strict=False):
        volumes = np.array(
            [
                [
                    hypervolume(front([r for r in rows if r["seconds"] <= moment]), reach)
                    for moment in moments
                ]
                for rows in seeds[:20]
            ]
        )
        middle, off = volumes.mean(axis=0), volumes.std(axis=0)
        look = {"legendgroup": name, "line": {"color": colour}}
        figure.add_scatter(x=moments, y=middle, name=name, **look, row=1, col=1)
        figure.add_scatter(
            x=[*moments, *moments[::-1]],
            y=[*(middle + off), *(middle - off)[::-1]],
            fill="toself",
            opacity=0.2,
            line={"width": 0, "color": colour},
            legendgroup=name,
            showlegend=False,
            row=1,
            col=1,
        )
        rows = front([r for r in seeds[0] if r["seconds"] <= budget])
        figure.add_scatter(
            x=[r["macs"] / 1e6 for r in rows],
            y=[r["test"] for r in rows],
            mode="lines+markers",
            showlegend=False,
            **look,
            row=1,
            col=2,
        )
    true = front(results.truth)
    figure.add_scatter(
        x=[r["macs"] / 1e6 for r in true],
        y=[r["test"] for r in true],
        mode="markers",
        marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": "#30363d"}},
        name="front of the truth",
        row=1,
        col=2,
    )
    figure.update_xaxes(title_text="compute, seconds of one core", col=1)
    figure.update_yaxes(title_text="hypervolume of test scores", col=1)
    figure.update_xaxes(type="log", title_text="MMACs of one query", col=2)
    figure.update_yaxes(title_text="cross-test mAP, test classes (seed 0)", col=2)
    figure.update_layout(template="plotly_white", width=1200, height=480, margin={"t": 20})
    path = Path(results.setting.out) / "fronts.html"
    figure.write_html(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["all", *PARTS, "table"])
    parser.add_argument("--data", help="images, as `querynas gallery build` takes them")
    parser.add_argument("--gallery", help="gallery folder of those images")
    parser.add_argument("--out", default="bench/search", help="folder of results")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--supernet-epochs", type=int, default=12)
    parser.add_argument("--candidates", type=int, default=120)
    parser.add_argument("--short", type=int, default=12)
    parser.add_argument("--full", type=int, default=6)
    parser.add_argument("--budget", type=float, default=900, help="seconds of one core")
    parser.add_argument("--processes", type=int, default=2, help="jobs side by side")
    options = vars(parser.parse_args())
    what, processes = options.pop("what"), options.pop("processes")
    Path(options["out"]).mkdir(parents=True, exist_ok=True)
    if what == "table":
        setting = Setting(**json.loads((Path(options["out"]) / "setting.json").read_text()))
        results = Results.read(replace(setting, out=options["out"]))
        table(results)
        print(f"\nTruth: {store(results)}\nPlot: {plot(results)}")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    setting = Setting(**options)
    keep(setting.file("setting"), asdict(setting))
    numbers = {
        "truth": [(setting, i) for i in range(setting.count)],
        "ours": [(setting, seed) for seed in SEEDS],
        "slices": [(setting, seed) for seed in SEEDS],
        "rungs": [(setting, i, processes) for i in range(processes)],
        "shared": [(setting, seed) for seed in SEEDS],
        "alone": [(setting, seed, i) for seed in SEEDS for i in range(setting.full)],
        "grid": [(setting, seed, i) for seed in SEEDS for i in range(len(GRID))],
    }
    for name, part in PARTS.items():
        if what in ("all", name):
            do(part, numbers[name], processes)


PARTS: dict[str, Callable[..., None]] = {
    "truth": train_truth,
    "ours": search_ours,
    "slices": score_shared,
    "rungs": rungs,
    "shared": search_shared,
    "alone": retrain,
    "grid": train_grid,
}

if __name__ == "__main__":
    main()
