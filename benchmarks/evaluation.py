"""Time and memory of exact retrieval evaluation, side by side with public evaluators.

Every row runs in a fresh process on the same vectors (memory-mapped float32, 512-d, clusters of
50, 1,000 queries): a bare matrix product in the same blocks, ours, and others where they can run.
Memory is the peak of what the process holds itself; pages of the mapped gallery, which the system
takes back at will, are not counted.

    python benchmarks/evaluation.py --sizes 100000 1000000 --limit 120
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

QUERIES, DIMENSION, POSITIVES, BLOCK, NOISE = 1_000, 512, 50, 8_192, 2.4


def write_vectors(folder: Path, size: int) -> None:
    """Clusters of `POSITIVES` vectors; the first of each of the first clusters is also a query."""
    rng = np.random.default_rng(0)
    clusters = size // POSITIVES
    centres = rng.standard_normal((clusters, DIMENSION), dtype=np.float32)
    labels = np.arange(size) % clusters
    gallery = np.lib.format.open_memmap(
        folder / "gallery.npy", mode="w+", dtype=np.float32, shape=(size, DIMENSION)
    )
    for start in range(0, size, 50_000):
        part = labels[start : start + 50_000]
        rows = centres[part] + NOISE * rng.standard_normal((len(part), DIMENSION), dtype=np.float32)
        gallery[start : start + len(part)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = rng.choice(clusters, QUERIES, replace=clusters < QUERIES)
    queries = centres[asked] + NOISE * rng.standard_normal((QUERIES, DIMENSION), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    np.savez(folder / "rest.npz", queries=queries, asked=asked, labels=labels)


def bare_product(queries: np.ndarray, asked: np.ndarray, gallery: np.ndarray, _: np.ndarray) -> str:
    tile = np.empty((len(queries), BLOCK), dtype=np.float32)
    for start in range(0, len(gallery), BLOCK):
        block = np.array(gallery[start : start + BLOCK])
        np.matmul(queries, block.T, out=tile[:, : len(block)])
    return "-"


def querynas(
    queries: np.ndarray, asked: np.ndarray, gallery: np.ndarray, labels: np.ndarray
) -> str:
    from compat.evaluation import Truth, evaluate

    return f"{evaluate(queries, gallery, Truth.from_labels(asked, labels), block=BLOCK).map:.4f}"


def full_sort(
    queries: np.ndarray, asked: np.ndarray, gallery: np.ndarray, labels: np.ndarray
) -> str:
    values = []
    for query, label in zip(queries, asked, strict=True):
        order = np.argsort(-(gallery @ query))
        ranks = np.flatnonzero(labels[order] == label) + 1
        values.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return f"{np.mean(values):.4f}"


def pytorch_metric_learning(
    queries: np.ndarray, asked: np.ndarray, gallery: np.ndarray, labels: np.ndarray
) -> str:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import FaissKNN

    calculator = AccuracyCalculator(
        include=("mean_average_precision",),
        k=len(gallery),
        knn_func=FaissKNN(),
        device=torch.device("cpu"),
    )
    found = calculator.get_accuracy(
        torch.from_numpy(queries),
        torch.from_numpy(asked),
        torch.from_numpy(np.array(gallery)),
        torch.from_numpy(labels),
    )
    return f"{found['mean_average_precision']:.4f}"


def torchmetrics(
    queries: np.ndarray, asked: np.ndarray, gallery: np.ndarray, labels: np.ndarray
) -> str:
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    metric, vectors, classes = RetrievalMAP(), torch.from_numpy(gallery), torch.from_numpy(labels)
    for number, (query, label) in enumerate(zip(queries, asked, strict=True)):
        metric.update(
            vectors @ torch.from_numpy(query),
            classes == int(label),
            torch.full((len(gallery),), number),
        )
    return f"{metric.compute().item():.4f}"


EVALUATORS: dict[str, Callable[..., str]] = {
    "bare matrix product": bare_product,
    "querynas": querynas,
    "numpy, full sort": full_sort,
    "pytorch-metric-learning": pytorch_metric_learning,
    "torchmetrics RetrievalMAP": torchmetrics,
}


def measure(name: str, folder: Path) -> None:
    """Run one evaluator in this process and print what it took, as JSON."""
    gallery = np.load(folder / "gallery.npy", mmap_mode="c")
    with np.load(folder / "rest.npz") as rest:
        queries, asked, labels = rest["queries"], rest["asked"], rest["labels"]
    own: list[int] = [0]
    threading.Thread(target=watch_memory, args=(own,), daemon=True).start()
    start = time.perf_counter()
    result = EVALUATORS[name](queries, asked, gallery, labels)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "kibibytes": max(own), "map": result}))


def watch_memory(own: list[int]) -> None:
    """Append the private memory of this process in KiB, 50 times a second (Linux)."""
    while True:
        with open("/proc/self/status") as status:
            own += [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
        time.sleep(0.02)


def row(name: str, folder: Path, limit: float, product: float | None) -> float | None:
    """Measure in a fresh process, print a row of the table and give its seconds."""
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=True
        ).stdout
    except subprocess.TimeoutExpired:
        print(f"| {name} | not within {limit:.0f} s | | | |", flush=True)
        return None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"signal {-error.returncode}"])[-1]
        print(f"| {name} | cannot run: {reason[:70]} | | | |", flush=True)
        return None
    found = json.loads(run.splitlines()[-1])
    ratio = f"{found['seconds'] / (product or found['seconds']):.2f}"
    print(
        f"| {name} | {found['seconds']:.2f} | {ratio} | {found['kibibytes'] / 2**10:,.0f} | "
        f"{found['map']} |",
        flush=True,
    )
    return float(found["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--limit", type=float, default=120, help="seconds a row may take")
    parser.add_argument("--measure", choices=EVALUATORS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.folder)
        return
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_vectors(Path(folder), size)
            print(f"\n{QUERIES:,} queries x {size:,} gallery vectors, {DIMENSION}-d\n")
            print("| evaluator | seconds | x product | peak MiB | mAP |")
            print("|---|---|---|---|---|", flush=True)
            product = None
            for name in EVALUATORS:
                seconds = row(name, Path(folder), arguments.limit, product)
                product = product or seconds


if __name__ == "__main__":
    main()
