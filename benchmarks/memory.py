"""What keeping freed memory is worth: networks run with the C library's settings and with ours.

    python benchmarks/memory.py

Every line is two processes of one thread, in turns: one that leaves glibc's malloc as it is and
one that keeps what was freed (`searchspaces/support/process.py`).
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

WORK = (
    ("tf_efficientnet_lite2", 128, "embed", 128),
    ("tf_efficientnet_lite0", 64, "embed", 128),
    ("tf_efficientnet_lite0", 96, "train", 64),
    ("tf_efficientnet_lite0", 64, "train", 64),
    ("tf_efficientnet_lite0", 32, "train", 64),
    ("resnet18", 96, "train", 64),
)
TURNS, STEPS = 3, 8


def measure(name: str, resolution: int, work: str, batch: int) -> None:
    """Print milliseconds for an image and the peak memory in MiB, of this process."""
    import searchspaces  # noqa: F401, I001  first: it settles the process
    import timm
    import torch

    torch.set_num_threads(1)
    network = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, resolution, resolution).to(memory_format=torch.channels_last)

    def step() -> None:
        if work == "train":
            network(images).square().mean().backward()
        else:
            with torch.inference_mode():
                network(images)

    step()
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    took = (time.perf_counter() - begun) / STEPS / batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([took * 1e3, peak]))


def measured(work: tuple[str, int, str, int], **environment: str) -> list[float]:
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import memory; "
    code += f"memory.measure(*{work!r})"
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=own, check=True, capture_output=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    print("| network | px | | batch | ms an image, as glibc is | ours | ratio | MiB | ours |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for work in WORK:
        left, kept = [], []
        for _ in range(TURNS):
            left.append(measured(work, GLIBC_TUNABLES="glibc.malloc.check=0"))
            kept.append(measured(work))
        before, after = (map(statistics.median, zip(*turns, strict=True)) for turns in (left, kept))
        (slow, much), (fast, little) = before, after
        words = " | ".join(map(str, work))
        print(
            f"| {words} | {slow:.2f} | {fast:.2f} | {slow / fast:.2f} | {much:.0f} | {little:.0f} |"
        )


if __name__ == "__main__":
    main()
