"""Every compatibility loss, and every kind of gallery, under one equal budget on real images.

    python benchmarks/compat_methods.py losses    --data D --gallery G --out bench
    python benchmarks/compat_methods.py galleries --data D --gallery G --model M --out bench
    python benchmarks/compat_methods.py steps

`losses` trains one query network with every loss to one gallery, `galleries` with the loss that
suits each to variants of it (made in ``bench/spaces`` when they are not there). Trainings differ
in the seed of weights and order only; the best epoch is picked on validation classes, the tables
are of test classes. Intervals are 95% t-intervals over seeds. Every training leaves a file in
``bench/``, so that a killed run continues where it was. `steps` times a training step of every loss
against one of regression, in turns in one process, and its memory, each loss in a process of its
own.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

Loss = str | dict[str, Any]

LOSSES: dict[str, Loss] = {
    "regression": "regression",
    "fitnet (regressor dropped)": "fitnet",
    "rkd": "rkd",
    "logit_kd": "logit_kd",
    "aml (Contr)": "aml",
    "aml (Contr+)": {"aml": {"regression": 1.0}},
    "raml": "raml",
    "csd": "csd",
    "csd (k 128)": {"csd": {"k": 128}},
    "csd (k 512)": {"csd": {"k": 512}},
    "rop": "rop",
    "d3still": "d3still",
    "ssp": "ssp",
    "bct": "bct",
    "bct_lwf": "bct_lwf",
    "lce": "lce",
    "lce (T dropped)": {"lce": {"transform": True}},
    "hvs": "hvs",
    "advbct": "advbct",
    "advbct (threshold 0.6)": {"advbct": {"threshold": 0.6}},
    "odpp": "odpp",
    "ndpp": "ndpp",
    "ssp + regression": {"ssp": 1.0, "regression": 1.0},
    "bct + regression": {"bct": 1.0, "regression": 5.0},
    "rkd + regression": {"rkd": 1.0, "regression": 1.0},
}


@dataclass(frozen=True)
class Job:
    """One training: a row of a table with one seed."""

    row: str
    seed: int
    loss: Loss
    data: str
    gallery: str
    network: str
    resolution: int
    epochs: int
    out: str

    @property
    def file(self) -> Path:
        name = "".join(c if c.isalnum() else "_" for c in self.row)
        return Path(self.out) / f"{name}-{self.seed}.json"


def train(job: Job) -> None:
    """Align one query model, score it on the test part, and leave the result in ``job.file``."""
    if job.file.exists():
        return
    import torch

    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from compat.training.config import TrainingConfig
    from nas.alignment.aligner import Aligner
    from searchspaces import count_macs, timm_query_model
    from searchspaces.support.files import write_atomically

    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    data = load_study_data(job.data, job.gallery, SplitConfig())
    model = timm_query_model(
        job.network, data.gallery.dimension, resolution=job.resolution, pretrained=False
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    aligner = Aligner(
        data.training(job.resolution).to(device), data.val, job.loss, job.seed, device
    )
    start = time.perf_counter()
    config = TrainingConfig(epochs=job.epochs, validate_every=2, precision="bf16")
    fitted = aligner.align(model, config, title=f"{job.row}, seed {job.seed}", quiet=True)
    seconds = time.perf_counter() - start
    score = data.test.score(data.test.embed(model))
    result = {
        "row": job.row,
        "seed": job.seed,
        "macs": count_macs(model, job.resolution),
        "val": fitted.best,
        "epoch": fitted.epoch,
        "seconds": seconds,
        "cross_test": score.cross_test.map,
        "self_test": score.self_test.map,
        "paragon": score.paragon.map,
        "bytes_per_vector": data.gallery.bytes_per_vector,
    }
    write_atomically(job.file, lambda temporary: temporary.write_text(json.dumps(result)))


def run(jobs: list[Job], processes: int) -> None:
    """Train what is not trained yet, each in a process with one thread."""
    open_jobs = [job for job in jobs if not job.file.exists()]
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=1) as pool:
        for _ in tqdm(
            pool.imap_unordered(train, open_jobs), total=len(open_jobs), desc="trainings"
        ):
            pass


def table(jobs: list[Job], storage: bool) -> None:
    """Print mean and interval over seeds of every row."""
    from nas.statistics.repeats import estimate

    middle = " bytes/vector |" if storage else ""
    print(f"| |{middle} test cross-test | of paragon | test self-test | test paragon |")
    print("|---|---|---|---|---|" + ("---|" if storage else ""))
    for row in dict.fromkeys(job.row for job in jobs):
        found = [json.loads(job.file.read_text()) for job in jobs if job.row == row]
        cross, own, paragon = (
            [f[key] for f in found] for key in ("cross_test", "self_test", "paragon")
        )
        share = statistics.mean(cross) / statistics.mean(paragon)
        cell = f" {statistics.mean(f['bytes_per_vector'] for f in found):g} |" if storage else ""
        print(
            f"| {row} |{cell} {estimate(cross):.3f} | {share:.1%} | {estimate(own):.3f} "
            f"| {statistics.mean(paragon):.3f} |"
        )


def jobs_of(
    rows: dict[str, tuple[Loss, str]], options: argparse.Namespace, folder: str
) -> list[Job]:
    """All trainings, seed after seed, so that a run cut short has whole tables of fewer seeds."""
    out = Path(options.out) / folder
    out.mkdir(parents=True, exist_ok=True)
    return [
        Job(
            row,
            seed,
            loss,
            options.data,
            gallery,
            options.network,
            options.resolution,
            options.epochs,
            str(out),
        )
        for seed in range(options.seeds)
        for row, (loss, gallery) in rows.items()
    ]


# --- kinds of gallery -----------------------------------------------------------------------


def variants(options: argparse.Namespace) -> dict[str, tuple[Loss, str]]:
    """Make the galleries that are not there yet; their rows with the loss that suits each."""
    from compat.data import ViewRecipe, open_data, split
    from compat.gallery import (
        GallerySpace,
        build_gallery,
        compress_gallery,
        enhance,
        fuse_galleries,
        hash_gallery,
        load_gallery_model,
        reduce_gallery,
    )
    from compat.tasks.split import SplitConfig
    from compat.tasks.study_data import load_study_data
    from compat.training.config import TrainingConfig
    from nas.recipes.joint import Reference, fuse_jointly, hash_jointly

    folder = Path(options.out) / "spaces"
    folder.mkdir(parents=True, exist_ok=True)
    images = open_data(options.data)

    def built(name: str, steps: tuple[str, ...]) -> GallerySpace:
        if not (folder / name).exists():
            build_gallery(
                images,
                enhance(load_gallery_model(options.model), steps),
                folder / name,
                views=ViewRecipe(count=options.views, flip=False),
                train=split(images).train,
            )
        return GallerySpace.open(folder / name)

    def derived(
        name: str, make: Callable[..., Any], source: GallerySpace | list[GallerySpace], **how: Any
    ) -> str:
        if not (folder / name).exists():
            make(source, folder / name, **how)
        return str(folder / name)

    plain = built("plain", ())
    scales = built("multiscale", ("multiscale",))
    everything = built("onlyglobal", ("onlyglobal",))
    fused = derived("fused", fuse_galleries, [plain, scales, everything])
    to_class: Loss = {"aff": 1.0, "regression": 10.0}
    rows: dict[str, tuple[Loss, str]] = {
        "one look, float32 (raw)": ("regression", str(plain.path)),
        "PCA to 64": ("regression", derived("pca", reduce_gallery, plain, dimension=64)),
        "PCA to 64, whitened": (
            "regression",
            derived("whitened", reduce_gallery, plain, dimension=64, whiten=True),
        ),
        "PQ, 32 bytes": (
            "regression",
            derived("pq32", compress_gallery, plain, bytes_per_vector=32),
        ),
        "PQ, 8 bytes": ("regression", derived("pq8", compress_gallery, plain, bytes_per_vector=8)),
        "OPQ, 8 bytes": (
            "regression",
            derived("opq8", compress_gallery, plain, bytes_per_vector=8, opq=True),
        ),
        "multi-scale": ("regression", str(scales.path)),
        "OnlyGlobal": ("regression", str(everything.path)),
        "AFF of the three, loss aff": ("aff", fused),
        "AFF of the three, aff + regression": (to_class, fused),
    }
    for bits in (32, 64, 128):
        hashed = derived(f"hash{bits}", hash_gallery, plain, bits=bits)
        rows[f"CSCH, {bits} bits"] = ("csch", hashed)

    data = load_study_data(options.data, plain.path, SplitConfig())
    training = TrainingConfig(epochs=options.epochs, precision="bf16")
    reference = Reference(options.network, options.resolution, training, pretrained=False)
    fused = derived(
        "fused-jointly", lambda _, out: fuse_jointly(data, [scales, everything], out, reference), []
    )
    rows["AFF of the three, made jointly, aff + regression"] = (to_class, fused)
    hashed = derived(
        "hash64-jointly", lambda _, out: hash_jointly(data, out, reference, bits=64), []
    )
    rows["CSCH, 64 bits, made jointly"] = ("csch", hashed)
    return rows


# --- the cost of a step ---------------------------------------------------------------------


def steps(options: argparse.Namespace) -> None:
    """Print milliseconds, ratio to regression and memory of a training step with every loss."""
    print("| | ms a step | × regression | peak memory, MiB |")
    print("|---|---|---|---|")
    for row, loss in LOSSES.items():
        command = [sys.executable, __file__, "step", json.dumps(loss), "--network", options.network]
        command += ["--resolution", str(options.resolution), "--repeats", str(options.repeats)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        print(
            f"| {row} | {found['ms']:.0f} | {found['ratio']:.2f} | {found['peak']:.0f} |",
            flush=True,
        )


def step(options: argparse.Namespace) -> None:
    """Time one loss against regression in turns: batch 128, 512-d, 11,560 images, 578 classes."""
    import torch
    import torch.nn.functional as F

    from compat.losses import create_loss
    from compat.targets import AlignmentTargets
    from searchspaces import timm_query_model

    torch.manual_seed(0)
    classes, images, dimension, batch = 578, 11_560, 512, 128
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, dimension)
    gallery = F.normalize(centres[labels] + torch.randn(images, dimension), dim=1)
    targets = AlignmentTargets(gallery, gallery, labels)
    model = timm_query_model(
        options.network, dimension, resolution=options.resolution, pretrained=False
    ).to(memory_format=torch.channels_last)

    def prepared(config: Loss) -> Iterator[float]:
        loss = create_loss(config, targets)
        both = torch.nn.ModuleList([model, loss])
        optimizer = torch.optim.AdamW(both.parameters(), lr=1e-4)
        generator = torch.Generator().manual_seed(0)
        while True:
            rows = torch.randint(images, (batch,), generator=generator)
            pictures = torch.rand(
                batch, 3, options.resolution, options.resolution, generator=generator
            ).to(memory_format=torch.channels_last)
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            value = loss(model(pictures), targets.vectors[rows], targets.batch(rows))
            value.backward()
            optimizer.step()
            yield time.perf_counter() - start

    base, other = prepared("regression"), prepared(json.loads(options.loss))
    pairs = [(next(base), next(other)) for _ in range(5 + options.repeats)][5:]
    print(
        json.dumps(
            {
                "ms": 1000 * statistics.median(second for _, second in pairs),
                "ratio": statistics.median(second / first for first, second in pairs),
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["losses", "galleries", "steps", "step"])
    parser.add_argument("loss", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--data", help="images, as `querynas gallery build` takes them")
    parser.add_argument("--gallery", help="gallery folder of those images")
    parser.add_argument("--model", help="gallery model, for `galleries`")
    parser.add_argument("--views", type=int, default=1, help="views of the galleries made")
    parser.add_argument("--out", default="bench", help="folder of results")
    parser.add_argument("--network", default="test_resnet", help="timm name of the query network")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=LOSSES, help="of `losses`; all of them")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--repeats", type=int, default=15, help="timed pairs of steps")
    options = parser.parse_args()
    if options.what == "steps":
        steps(options)
    elif options.what == "step":
        step(options)
    else:
        if options.what == "losses":
            chosen = options.rows or LOSSES
            rows = {row: (LOSSES[row], options.gallery) for row in chosen}
        else:
            rows = variants(options)
        jobs = jobs_of(rows, options, options.what)
        run(jobs, options.processes)
        table(jobs, storage=options.what == "galleries")


if __name__ == "__main__":
    main()
