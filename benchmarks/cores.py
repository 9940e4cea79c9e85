"""What a busy machine makes of our steps: threads and processes, quiet and beside other work.

    python benchmarks/cores.py [--seconds 6] [--turns 2]

Each step runs over and over in a process of its own, once everything is loaded:

- `training`: a sandwich step of an elastic supernet, four subnetworks, batch 64, 48 px.
- `alignment`: a step of mobilenetv3_small_050, batch 64, 48 px.
- `scoring`: a slice of the supernet: statistics and projection from 512 images, validation mAP.
- `pruning`: a ResNet-18 cut to half of its MACs by Taylor importance.

with one thread; with as many threads as there are cores; and in as many processes of one thread as
there are cores. `quiet` is the machine as it is, so nothing else should run on it; `busy` has a
process beside it on each core that does nothing but count. Times are of the wall, in milliseconds a
step; for processes the time that all of them take for one step together. `busy` and `quiet`
alternate. Two competitors on a core leave each of them half, so a ratio of 2 is what the machine
gives.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
WAYS = (("1 thread", 1, 1), (f"{CORES} threads", CORES, 1), (f"{CORES} processes", 1, CORES))
STEPS = ("training", "alignment", "scoring", "pruning")
DATA = "facades:classes=40,images=16,size=48,seed=0"


def prepare(folder: Path) -> None:
    """Build the gallery that all steps use."""
    from compat.data import ViewRecipe, open_data, split
    from compat.gallery import build_gallery, load_gallery_model

    images = open_data(DATA)
    model = load_gallery_model("timm:resnet18,pretrained=false,resolution=48")
    train = split(images).train
    build_gallery(images, model, folder, views=ViewRecipe(count=1), train=train)


def step_of(name: str, gallery: str) -> Callable[[], object]:
    """Return a function that makes one step."""
    import torch

    from compat.losses import create_loss
    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from nas.alignment.aligner import Aligner
    from nas.alignment.subnetworks import SubnetworkDraws
    from nas.alignment.supernet import sandwich_losses
    from pruning import Target, reach
    from searchspaces import create_space, timm_query_model

    data = load_study_data(DATA, gallery, SplitConfig())
    training = data.training(48)
    device = torch.device("cpu")
    aligner = Aligner(training, data.val, "regression", 0, device)
    dimension = data.gallery.dimension
    supernet = create_space("mbconv", resolutions=[32, 48]).supernet(dimension)
    loss = create_loss("regression", training.targets, centred=None, seed=0)
    images, batch = next(iter(training.epoch(64, seed=0, device=device)))

    if name == "scoring":
        smallest = supernet.space.smallest()
        return lambda: aligner.cross_test(aligner.slice(supernet, smallest, 512))
    if name == "pruning":
        whole = timm_query_model("resnet18", dimension, resolution=48, pretrained=False)
        losses = aligner.batch_losses(batches=2, size=64)
        target = Target("macs", 0.5, relative=True)
        return lambda: reach(whole, target, criterion="taylor", batch_loss=losses)

    model = timm_query_model("mobilenetv3_small_050", dimension, resolution=48, pretrained=False)
    trained = supernet if name == "training" else model
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, fused=True)
    draws = SubnetworkDraws(supernet.space, dimension, 0)
    sandwich = sandwich_losses(
        supernet, loss, draws, random_subnetworks=2, distill=0.0, steps=1_000_000
    )

    def train() -> None:
        optimizer.zero_grad()
        if name == "training":
            for each in sandwich(images, batch, 0):
                each.backward()
        else:
            loss(model(images), batch.vectors, batch).backward()
        optimizer.step()

    return train


def run(name: str, gallery: str, threads: int, seconds: float) -> None:
    """Be one of the processes: say when all is loaded, and after a line of input make steps."""
    from nas.study.processes import limited

    with limited(threads):
        step = step_of(name, gallery)
        step()
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.perf_counter()
        steps = 0
        while time.perf_counter() - begun < seconds or steps < 2:
            step()
            steps += 1
        print((time.perf_counter() - begun) / steps, flush=True)


@contextmanager
def competitors(count: int) -> Iterator[None]:
    """Have so many processes count beside what is measured, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    begun = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    for each, core in zip(begun, cores, strict=False):
        os.sched_setaffinity(each.pid, {core})
    try:
        yield
    finally:
        for each in begun:
            each.kill()
            each.wait()


def measured(name: str, gallery: str, threads: int, processes: int, options: list[str]) -> float:
    """Milliseconds of the wall in which the processes together make one step."""
    words = [__file__, "--step", name, gallery, str(threads), *options]
    pipe = subprocess.PIPE
    silent = {**os.environ, "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    begun = [
        subprocess.Popen([sys.executable, *words], stdin=pipe, stdout=pipe, text=True, env=silent)
        for _ in range(processes)
    ]
    for each in begun:
        assert each.stdout is not None
        if each.stdout.readline() != "ready\n":
            raise SystemExit(f"A process of {name} ended before its first step.")
    for each in begun:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    taken = [float(each.communicate()[0]) for each in begun]
    return 1e3 / sum(1 / seconds for seconds in taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--turns", type=int, default=2, help="quiet and busy, in alternation")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import searchspaces.support.process  # noqa: F401  settles how threads wait, for children too

    if options.step:
        name, gallery, threads = options.step
        run(name, gallery, int(threads), options.seconds)
        return
    print("| step | way | quiet, ms | busy, ms | busy / quiet |")
    print("|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder) / "gallery"
        prepare(gallery)
        given = ["--seconds", str(options.seconds)]
        for name in options.steps:
            for way, threads, processes in WAYS:
                found: dict[int, list[float]] = {0: [], CORES: []}
                for _ in range(options.turns):
                    for count, times in found.items():
                        with competitors(count):
                            times.append(measured(name, str(gallery), threads, processes, given))
                quiet, busy = (statistics.median(times) for times in found.values())
                print(
                    f"| {name} | {way} | {quiet:.1f} | {busy:.1f} | {busy / quiet:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
