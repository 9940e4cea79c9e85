"""Hostile files by kind: how many were tried, were clean, and ran code.

    python benchmarks/hostile.py --cases 2000
    python benchmarks/hostile.py --cases 2000 --kinds manifests images

Every kind of tests/hostile is tried in a process of its own. A case is clean when the file opens,
or is refused in one sentence of at most 300 characters that names it.
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import sys
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "hostile"
sys.path.insert(0, str(TESTS))

from mutations import Cases, Tally, tally  # noqa: E402


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
    total = 0
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
        total += done.tried
        unclean += [f"{name}: {each}" for each in done.unclean + done.executed]
    print(f"\n{total:,} cases, {len(unclean)} not clean.")
    print("\n".join(unclean[:50]), file=sys.stderr)
    sys.exit(bool(unclean))


if __name__ == "__main__":
    main()
