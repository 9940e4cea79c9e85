"""Hostile files by kind: how many were tried, were clean, and ran code.

    python benchmarks/hostile.py --cases 2000
    python benchmarks/hostile.py --cases 2000 --kinds manifests images

Every kind of tests/hostile is tried in a process of its own. A case is clean when it is refused in
one sentence of at most 300 characters that names the file (of a text such as a data set's: the
text or a part of it), or when it opens and is judged to be right:

- JSON and YAML: every field that the file has was read with the value that it has there, no field
  is there twice, and what was read is the same after it is written and read again.
- Models and weights: all weights are finite, the network runs, a saved model is written again with
  the same header. That a weight is another than before the damage is no fault: the file says so.
- Vectors: those of the gallery are those that NumPy reads, of length one; ids are the file's lines.
  Of Parquet and faiss: as many as ids, and finite.
- Galleries: all files have the SHA-256 that the description gives, or their length was told anew.
- Tables of images: the rows, labels and paths are those that pandas reads, and every image loads.
- Images and decoded pixels: as large as the header or the box says; the file's own pixels.
- Databases of a run: candidates are in range and of the study's spaces, and those of before where
  the damage is not in a candidate's own row.
- Command lines: the command got as far as its work. A usage error of the option parser is judged as
  a refusal, without what it repeats of values of more than 100 characters.
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "hostile"
sys.path.insert(0, str(TESTS))

from mutations import Cases, Tally, tally  # noqa: E402

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "saved models and checkpoints": ("models:", "checkpoints:", "training states:", "exports:"),
    "gallery models": ("trained gallery models", "ONNX gallery models"),
    "run, nest and prune folders": ("runs:", "nests:", "prunings:", "latency tables"),
    "gallery folders": ("gallery folders",),
    "command lines": ("command lines",),
    "vectors, ids and faiss indexes": ("vectors and ids", "Parquet vectors", "faiss indexes"),
    "study files": ("study files:",),
    "manifests and listings": (
        *("manifests", "Parquet manifests", "ground truth", "published listings"),
    ),
    "images": ("images", "decoded caches"),
    "model specs": ("model specs",),
    "data specs": ("data specs",),
}
"""Beginnings of the names of kinds, by what they have in common."""


def _heading(kind: str) -> str:
    return next(heading for heading, names in HEADINGS.items() if kind.startswith(names))


def kinds() -> Mapping[str, tuple[str, str]]:
    """Module and name of every kind, by name."""
    found = {}
    for file in sorted(TESTS.glob("test_*.py")):
        for name in _cases(file.stem):
            found[name] = (file.stem, name)
    return found


def _cases(module: str) -> Mapping[str, Cases]:
    content: Mapping[str, Cases] = getattr(importlib.import_module(module), "KINDS", {})
    return content


def _try(place: tuple[str, str], seed: int, count: int) -> tuple[Tally, int]:
    import resource

    warnings.simplefilter("ignore")
    module, name = place
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        done = tally(_cases(module)[name], Path(folder), seed=seed, count=count)
    return done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="all by default")
    options = parser.parse_args()
    print("| kind | tried | opened | refused | not clean | code executed | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    unclean: list[str] = []
    sums = {heading: Counter[str]() for heading in HEADINGS}
    for name, place in kinds().items():
        if options.kinds and name not in options.kinds:
            continue
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                done, peak = pool.submit(_try, place, options.seed, options.cases).result()
        except BrokenProcessPool:
            unclean.append(f"{name}: the process died")
            print(f"| {name} | died | | | | | |", flush=True)
            continue
        outcomes = done.outcomes
        print(
            f"| {name} | {done.tried:,} | {outcomes['opened']:,} | {outcomes['refused']:,} | "
            f"{len(done.unclean)} | {len(done.executed)} | {peak:,} |",
            flush=True,
        )
        sums[_heading(name)] += Counter(
            tried=done.tried,
            opened=outcomes["opened"],
            refused=outcomes["refused"],
            unclean=len(done.unclean),
            executed=len(done.executed),
        )
        unclean += [f"{name}: {each}" for each in done.unclean + done.executed]
    print("\n| | tried | opened | refused | not clean | code executed |")
    print("|---|---:|---:|---:|---:|---:|")
    tried = {heading: of for heading, of in sums.items() if of}
    for heading, of in {**tried, "all": sum(tried.values(), Counter[str]())}.items():
        words = (f"{of[name]:,}" for name in ("tried", "opened", "refused", "unclean", "executed"))
        print(f"| {heading} | {' | '.join(words)} |")
    print("\n".join(unclean[:50]), file=sys.stderr)
    sys.exit(bool(unclean))


if __name__ == "__main__":
    main()
