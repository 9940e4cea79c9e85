"""How well a search finds the true front: rungs against the truth, and fronts at equal compute.

    python benchmarks/search_quality.py all   --data D --gallery G --out bench/search
    python benchmarks/search_quality.py table --out bench/search

`all` does in turn, and each can be asked for alone:

- `truth` trains architectures of one search space alone, from random weights to the end of their
  schedule: half of them drawn uniformly, half spread evenly over the logarithm of MACs.
- `ours` lets our search run: a supernet, NSGA-II on shared weights, two rungs of alignment.
- `slices` and `rungs` score the truth's architectures on the shared weights of these searches (and
  after a short alignment from there), and in every other cheaper way, to see how each orders them.
- `cost` times trainings alone and scores on shared weights side by side.
- `shared` lets NSGA-II run on the same supernets for as long as our search took, and no ladder.
- `alone` trains the architectures of the fronts that our search found again, from random weights.
- `gains` searches on shared weights with and without screening, and on a reduced gallery with and
  without a warm start from our search.
- `grid` trains timm models of growing size until the same compute is spent.

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
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from quality import parts
from quality.gains import WAYS, gain, gains
from quality.plots import plot
from quality.results import Results
from quality.setting import SEEDS, Setting, keep, paired
from quality.tables import store, table
from tqdm import tqdm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["all", *PARTS, "table"])
    parser.add_argument("--data", help="images, as `querynas gallery build` takes them")
    parser.add_argument("--gallery", help="gallery folder of those images")
    parser.add_argument("--out", default="bench/search", help="folder of results")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--supernet-epochs", type=int, default=10)
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
        gains(results)
        print(f"\nTruth: {store(results)}\nPlot: {plot(results)}")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    setting = Setting(**options)
    keep(setting.file("setting"), asdict(setting))
    numbers: dict[str, list[tuple[Any, ...]]] = {
        "truth": [(setting, i) for i in range(setting.count)],
        "ours": [(setting, seed) for seed in SEEDS],
        "slices": [(setting, seed) for seed in SEEDS],
        "rungs": [(setting, i, processes) for i in range(processes)],
        "cost": [(setting, i) for i in paired(setting.count)],
        "shared": [(setting, seed) for seed in SEEDS],
        "alone": [(setting, seed, i) for seed in SEEDS for i in range(setting.full)],
        "gains": [(setting, name, seed) for seed in SEEDS for name in WAYS],
        "grid": [(setting, seed) for seed in SEEDS],
    }
    for name, part in PARTS.items():
        if what in ("all", name):
            do(part, numbers[name], processes)


def work(job: tuple[Callable[..., None], tuple[Any, ...]]) -> None:
    part, arguments = job
    part(*arguments)


def do(part: Callable[..., None], jobs: list[tuple[Any, ...]], processes: int) -> None:
    """Do what is not done yet, each job in a process with one thread."""
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        done = pool.imap_unordered(work, [(part, job) for job in jobs])
        for _ in tqdm(done, total=len(jobs), desc=part.__name__, unit="job"):
            pass


PARTS: dict[str, Callable[..., None]] = {
    "truth": parts.train_truth,
    "ours": parts.search_ours,
    "slices": parts.score_shared,
    "rungs": parts.rungs,
    "cost": parts.time_both,
    "shared": parts.search_shared,
    "alone": parts.retrain,
    "gains": gain,
    "grid": parts.train_grid,
}

if __name__ == "__main__":
    main()
