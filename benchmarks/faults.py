"""Killing with -9 at random: what is left, and whether work ends as if it had not happened.

    python benchmarks/faults.py --kills 40
    python benchmarks/faults.py --kills 10 --jobs search nest

Every job is run once to its end, and then again and again in new folders: it is killed after a
random time, started anew by the same command, killed again, and left alone after some kills. The
kill takes the process with all of its workers, or one of its processes alone. Then:

- galleries have the vectors, and trained networks the weights, of the unbroken run;
- of searches no trial is still running, every model was trained once on each rung, as many as the
  study asks for are scored, and what was scored in both runs from the same weights has the same
  score;
- no file of a half-done step is left.

Prints how many kills each job took and what was wrong; exits with 1 where anything was.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = "facades:classes=16,images=8,size=32,seed=0"
TRAINING = {"epochs": 4, "batch": 16, "validate_every": 1}
STUDY = {
    "data": DATA,
    "gallery": "gallery",
    "trials": 12,
    "start": 4,
    "spaces": {
        "slices": {
            "route": "supernet",
            "space": "mbconv",
            "calibration_images": 32,
            "random_subnetworks": 1,
            "training": TRAINING,
            "options": {
                "resolutions": [24, 32],
                "stem_widths": [8],
                "stem_strides": [2],
                "head_widths": [32, 64],
                "stages": [
                    {"widths": [8, 16], "depths": [1, 2], "expansions": [2], "kernels": [3]},
                    {"widths": [16, 24], "depths": [1], "expansions": [2, 3], "kernels": [3]},
                ],
            },
        }
    },
    "finish": [{"models": 4, "training": TRAINING}, {"models": 2, "training": TRAINING}],
}
KILLS_IN_A_RUN = 4


@dataclass(frozen=True)
class Job:
    """A command, and what is wrong with what it left beside the unbroken run's."""

    words: Sequence[str]
    wrong: Callable[[Path, Path], list[str]]


def weights_differ(found: Path, expected: Path) -> list[str]:
    from safetensors.numpy import load_file

    one, other = load_file(found), load_file(expected)
    same = one.keys() == other.keys() and all((one[k] == other[k]).all() for k in one)
    return [] if same else [f"{found.name} has other weights"]


def gallery_differs(found: Path, expected: Path) -> list[str]:
    import numpy as np

    same = np.array_equal(np.load(found / "vectors.npy"), np.load(expected / "vectors.npy"))
    return [] if same else ["the gallery has other vectors"]


def search_differs(found: Path, expected: Path) -> list[str]:
    from optuna.trial import TrialState

    from nas.study import Run

    run, whole = Run.open(found), Run.open(expected)
    records = run.records()
    running = run.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    wrong = [f"trial {trial.number} is still running" for trial in running]
    parents = Counter(r.parent for r in records if r.parent is not None)
    wrong += [f"trial {trial} was trained {n} times" for trial, n in parents.items() if n > 1]
    searched = sum(r.parent is None for r in records)
    wrong += [f"{searched} candidates"] if searched < STUDY["trials"] else []
    finished = len(parents)
    asked = sum(rung["models"] for rung in STUDY["finish"])
    wrong += [f"{finished} trained models, not {asked}"] if finished != asked else []
    known = {r.architecture: r.cross_test for r in whole.records() if r.parent is None}
    wrong += [
        f"trial {r.trial} has {r.cross_test:.4f}, not {known[r.architecture]:.4f}"
        for r in records
        if r.parent is None
        and r.architecture in known
        and abs(r.cross_test - known[r.architecture]) > 1e-6
    ]
    return wrong


def pruning_differs(found: Path, expected: Path) -> list[str]:
    from optuna.trial import TrialState

    from nas.study import Run

    run, whole = Run.open(found), Run.open(expected)
    running = run.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    wrong = [f"trial {trial.number} is still running" for trial in running]
    scores = [[(r.macs, r.cross_test) for r in each.records()] for each in (run, whole)]
    return wrong + ([] if scores[0] == scores[1] else [f"scores {scores[0]}, not {scores[1]}"])


def nest_differs(found: Path, expected: Path) -> list[str]:
    return weights_differ(found / "nested.safetensors", expected / "nested.safetensors")


PRUNE = "--target 0.5x --resolution 32 --align-epochs 2 --rounds 2 --epochs 1 --finish-epochs 2"
JOBS = {
    "gallery train": Job(
        f"gallery train --data {DATA} --backbone timm:test_resnet --epochs 6 --out OUT".split(),
        weights_differ,
    ),
    "gallery build": Job(
        f"gallery build --data {DATA} --model gallery.safetensors --views 2 --out OUT".split(),
        gallery_differs,
    ),
    "search": Job(["search", "study.json", "--workers", "1", "--out", "OUT"], search_differs),
    "search, 2 workers": Job(
        ["search", "study.json", "--workers", "2", "--out", "OUT"], search_differs
    ),
    "prune": Job(
        f"prune test_resnet --no-pretrained --data {DATA} --gallery gallery {PRUNE} "
        "--out OUT".split(),
        pruning_differs,
    ),
    "nest": Job(
        f"nest test_resnet --no-pretrained --data {DATA} --gallery gallery --resolution 32 "
        "--epochs 6 --capacities 50,100 --out OUT".split(),
        nest_differs,
    ),
}


def begin(words: Sequence[str], out: Path, folder: Path) -> subprocess.Popen[bytes]:
    code = "from nas.cli import main; main()"
    given = [str(out) if word == "OUT" else word for word in words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, *given],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Kill one process of a job alone and, a moment later, the rest."""
    found = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(rng.choice(found.stdout.split())), signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def left_behind(out: Path) -> list[str]:
    """Files of half-done steps."""
    if not out.is_dir():
        return []
    names = (file.name for file in out.rglob("*") if file.is_file())
    return [
        f"{name} is left" for name in names if name.endswith((".checkpoint", ".tmp", ".partial"))
    ]


def soak(name: str, folder: Path, kills: int, rng: random.Random) -> tuple[int, int, list[str]]:
    """Return how many runs were killed how often, and what was wrong."""
    job, whole = JOBS[name], folder / f"{name.replace(' ', '-')}"
    whole = whole.with_suffix(".safetensors") if name == "gallery train" else whole
    begun = time.monotonic()
    if begin(job.words, whole, folder).wait():
        raise SystemExit(f"{name} fails without being killed; see {folder / 'log.txt'}")
    takes = time.monotonic() - begun
    runs = killed = 0
    wrong: list[str] = []
    while killed < kills:
        runs += 1
        out = whole.with_name(f"again{whole.suffix}")
        left = rng.randint(1, KILLS_IN_A_RUN)
        while True:
            process = begin(job.words, out, folder)
            try:
                process.wait(rng.uniform(0.2, 1) * takes if left else None)
                break
            except subprocess.TimeoutExpired:
                kill(process, rng)
                left, killed = left - 1, killed + 1
        if process.returncode:
            wrong.append(f"run {runs} does not end; see {folder / 'log.txt'}")
        else:
            wrong += job.wrong(out, whole) + left_behind(out)
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
    return runs, killed, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="of each job")
    parser.add_argument("--jobs", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "study.json").write_text(json.dumps(STUDY))
        for name, out in (("gallery train", "gallery.safetensors"), ("gallery build", "gallery")):
            if begin(JOBS[name].words, folder / out, folder).wait():
                raise SystemExit((folder / "log.txt").read_text())
        print("| job | runs | kills | wrong |\n|---|---:|---:|---:|")
        for name in options.jobs:
            runs, killed, wrong = soak(name, folder, options.kills, rng)
            print(f"| {name} | {runs} | {killed} | {len(wrong)} |", flush=True)
            found += [f"{name}: {each}" for each in wrong]
    print("\n".join(found), file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
