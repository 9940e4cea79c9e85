"""Pruning driven by the compatibility loss against other criteria, and against training small.

    python benchmarks/pruning_methods.py train   --data D --gallery G --out bench/pruning
    python benchmarks/pruning_methods.py latency --out bench/pruning
    python benchmarks/pruning_methods.py table   --out bench/pruning

One timm network is aligned to a gallery for a little while, once for each seed. Every row of the
table then cuts that very model down in the same rounds, with the same re-alignment after each, and
at 50, 25, 10 and 5% of its MACs a copy is aligned on for what is left of one training budget. "from
scratch" spends the whole budget on a network of the same kind with evenly narrower layers, from a
random start. The budget counts training MACs, in epochs of the uncut network: a network of a
quarter of the MACs has four epochs for one. So every entry of the table has cost the same training
in all, the alignment of the uncut network and the batches that judge channels included.

Rows differ in nothing else, and seeds in the weights and the order of images. The best epoch is
picked on validation classes; the table is of test classes, with 95% t-intervals over seeds. Every
finished step leaves a file, so that a killed run continues where it was. `latency` is a command of
its own, because it has to be alone on the machine.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from compat.tasks.study_data import StudyData
    from compat.training.config import TrainingConfig
    from searchspaces import QueryModel

SHARES = (0.5, 0.25, 0.1, 0.05)
BATCH, IMPORTANCE_BATCHES = 128, 16
SCRATCH = "from scratch"
OURS = "ours: taylor, global, per MAC"
ROWS: dict[str, dict[str, Any]] = {
    OURS: {"criterion": "taylor", "scope": "global"},
    "taylor, global": {"criterion": "taylor", "scope": "global", "priced": False},
    "isomorphic (taylor)": {"criterion": "taylor", "scope": "isomorphic", "priced": False},
    "isomorphic (magnitude)": {"criterion": "magnitude", "scope": "isomorphic"},
    "magnitude": {"criterion": "magnitude", "scope": "local"},
    "lamp": {"criterion": "lamp", "scope": "global"},
    "random": {"criterion": "random", "scope": "local"},
}


@dataclass(frozen=True)
class Setting:
    """What all trainings share."""

    data: str
    gallery: str
    network: str
    resolution: int
    align_epochs: int
    round_epochs: int
    total_epochs: int
    out: str

    def file(self, row: str, seed: int, step: str) -> Path:
        """The weights that a step leaves; its figures stand beside them in a JSON file."""
        name = "".join(c if c.isalnum() else "_" for c in row)
        return Path(self.out) / f"{name}-{seed}-{step}.safetensors"


class Bench:
    """One process's data and trainings for one seed."""

    def __init__(self, setting: Setting, seed: int) -> None:
        import torch

        from compat.tasks.split import SplitConfig
        from compat.tasks.study_data import load_study_data
        from nas.alignment.aligner import Aligner

        torch.set_num_threads(1)
        self.setting, self.seed = setting, seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.data: StudyData = load_study_data(setting.data, setting.gallery, SplitConfig())
        training = self.data.training(setting.resolution).to(self.device)
        self.aligner = Aligner(training, self.data.val, "regression", seed, self.device)

    def uncut(self) -> "QueryModel":
        """The aligned network that all rows of this seed start from."""
        file = self.setting.file("uncut", self.seed, "1")
        if not file.exists():
            self.train(self.fresh(), file, self.training("align", self.setting.align_epochs))
        return self.load(file)

    def fresh(self) -> "QueryModel":
        import torch

        from searchspaces import timm_query_model

        torch.manual_seed(self.seed)
        return timm_query_model(
            self.setting.network,
            self.data.gallery.dimension,
            resolution=self.setting.resolution,
            pretrained=False,
        )

    def prune(self, row: str) -> None:
        """Cut in rounds; at every target a copy is aligned on."""
        model = uncut = self.uncut()
        for share in SHARES:
            file = self.setting.file(row, self.seed, f"round-{share}")
            if not file.exists():
                model = self.cut(model, uncut, row, share)
                self.train(model, file, self.training("realign", self.setting.round_epochs))
            model = self.load(file)
            finished = self.setting.file(row, self.seed, f"{share}")
            if not finished.exists():
                left = self.setting.total_epochs - spent(
                    self.setting, share, len(self.aligner.data)
                )
                training = self.training("align", max(1, round(left / share)))
                self.train(self.load(file), finished, training)

    def cut(self, model: "QueryModel", uncut: "QueryModel", row: str, share: float) -> "QueryModel":
        from pruning import Target, reach
        from searchspaces import count_macs

        model = reach(
            model,
            Target("macs", share * count_macs(uncut, uncut.resolution)),
            batch_loss=self.aligner.batch_losses(batches=IMPORTANCE_BATCHES, size=BATCH),
            seed=self.seed,
            **ROWS[row],
        )
        self.aligner.calibrate(model, 1024)
        return model

    def scratch(self, share: float) -> None:
        """Train an evenly narrower network for as long as pruning to its size took."""
        import torch

        from pruning import Target, reach

        file = self.setting.file(SCRATCH, self.seed, f"{share}")
        if file.exists():
            return
        fresh = self.fresh()
        # nothing but the widths is taken over
        model = reach(fresh, Target("macs", share, relative=True), criterion="random")
        torch.manual_seed(self.seed)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        model.backbone.network.init_weights()
        epochs = round(self.setting.total_epochs / share)
        self.train(model, file, self.training("align", epochs))

    def train(self, model: "QueryModel", file: Path, config: "TrainingConfig") -> None:
        """Align a model, keep it and its scores."""
        from pruning import save_model
        from searchspaces import count_macs, count_parameters
        from searchspaces.support.files import write_atomically

        checkpoint = file.with_suffix(".checkpoint")
        start = time.perf_counter()
        fitted = self.aligner.align(model, config, checkpoint=checkpoint, title=file.stem)
        seconds = time.perf_counter() - start
        model = model.to(self.device).eval()
        score = self.data.test.score(self.data.test.embed(model))
        result = {
            "macs": count_macs(model, model.resolution),
            "parameters": count_parameters(model),
            "epochs": config.epochs,
            "seconds": seconds,
            "val": fitted.best,
            "epoch": fitted.epoch,
            "cross_test": score.cross_test.map,
            "self_test": score.self_test.map,
            "paragon": score.paragon.map,
        }
        text = json.dumps(result)
        write_atomically(file.with_suffix(".json"), lambda path: path.write_text(text))
        save_model(model.cpu(), file)
        checkpoint.unlink(missing_ok=True)

    def load(self, file: Path) -> "QueryModel":
        from pruning import load_model

        return load_model(file).to(self.device)

    def training(self, kind: str, epochs: int) -> "TrainingConfig":
        from compat.training.config import TrainingConfig
        from nas.config.study import RealignTraining

        made = RealignTraining if kind == "realign" else TrainingConfig
        return made(epochs=epochs, validate_every=max(1, epochs // 8), precision="bf16")


def spent(setting: Setting, target: float, images: int) -> float:
    """Training until a model has been cut to a target, in epochs of the uncut network."""
    cuts = [share for share in SHARES if share >= target]
    judged = sum((1.0, *cuts[:-1])) * IMPORTANCE_BATCHES * BATCH / images
    return setting.align_epochs + sum(cuts) * setting.round_epochs + judged


def work(job: tuple[Setting, int, str, float | None]) -> None:
    """One row of one seed, or one training from scratch."""
    setting, seed, row, share = job
    bench = Bench(setting, seed)
    if share is not None:
        bench.scratch(share)
    elif row == "uncut":
        bench.uncut()
    else:
        bench.prune(row)


def train(setting: Setting, rows: list[str], seeds: list[int], processes: int) -> None:
    """Do what is not done yet, each job in a process with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    out = Path(setting.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "setting.json").write_text(json.dumps(asdict(setting), indent=1))
    starts = [(setting, seed, "uncut", None) for seed in seeds]
    jobs = [
        job
        for seed in seeds
        for row in rows
        for job in (
            [(setting, seed, row, share) for share in SHARES]
            if row == SCRATCH
            else [(setting, seed, row, None)]
        )
    ]
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for part in (starts, jobs):
            for _ in tqdm(pool.imap_unordered(work, part), total=len(part), desc="jobs"):
                pass


def latency(results: "Results") -> None:
    """Measure the seed-0 models of every target in ONNX Runtime, with one thread and with all.

    Models take turns, three times around, and the fastest median counts: disturbances only ever
    slow a run down.
    """
    from searchspaces.support.files import write_atomically

    files = [results.file("uncut", 0, "1")]
    files += [results.file(row, 0, str(share)) for row in results.rows for share in SHARES]
    folder = results.out / "onnx"
    folder.mkdir(exist_ok=True)
    models = {file.stem: folder / f"{file.stem}.onnx" for file in files}
    for file in tqdm(files, desc="write ONNX"):
        if not models[file.stem].exists():
            write_atomically(models[file.stem], partial(write_onnx, file))
    found: dict[str, dict[int, float]] = {name: {} for name in models}
    for _ in tqdm(range(3), desc="measure"):
        for name, model in models.items():
            for threads in (1, os.cpu_count() or 1):
                seconds = onnx_seconds(model, results.setting.resolution, threads)
                found[name][threads] = min(seconds, found[name].get(threads, seconds))
    text = json.dumps(found, indent=1)
    write_atomically(results.out / "latency.json", lambda path: path.write_text(text))


def write_onnx(source: Path, out: Path) -> None:
    import torch

    from pruning import load_model

    model = load_model(source).eval()
    image = torch.zeros(1, 3, model.resolution, model.resolution)
    torch.onnx.export(model, (image,), str(out), dynamo=True, external_data=False, verbose=False)


def onnx_seconds(path: Path, resolution: int, threads: int) -> float:
    """Median of 200 queries, one at a time."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, resolution, resolution), np.float32)
    seconds = []
    for _ in range(220):
        start = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: image})
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[20:])


@dataclass(frozen=True)
class Results:
    """What `train` left in a folder; only seeds that all rows have finished."""

    out: Path
    setting: Setting
    rows: list[str]
    seeds: list[int]

    @classmethod
    def read(cls, out: Path) -> "Results":
        setting = Setting(**json.loads((out / "setting.json").read_text()) | {"out": str(out)})
        rows = [row for row in (*ROWS, SCRATCH) if setting.file(row, 0, str(SHARES[-1])).exists()]
        seeds = [
            seed
            for seed in range(100)
            if all(setting.file(r, seed, str(t)).exists() for r in rows for t in SHARES)
        ]
        return cls(out, setting, rows, seeds)

    def file(self, row: str, seed: int, step: str) -> Path:
        return self.setting.file(row, seed, step)

    def figures(self, row: str, step: str, key: str) -> list[float]:
        """One figure of a step, by seed."""
        files = [self.file(row, seed, step).with_suffix(".json") for seed in self.seeds]
        return [json.loads(file.read_text())[key] for file in files]

    def latencies(self, row: str, step: str) -> dict[str, float]:
        """Seconds by number of threads."""
        content: dict[str, dict[str, float]]
        content = json.loads((self.out / "latency.json").read_text())
        return content[self.file(row, 0, step).stem]


def table(results: Results) -> None:
    """Print one table for every target."""
    from nas.statistics.repeats import estimate

    uncut = results.figures("uncut", "1", "cross_test")
    macs = results.figures("uncut", "1", "macs")[0]
    paragon = statistics.mean(results.figures("uncut", "1", "paragon"))
    start = results.latencies("uncut", "1")
    print(
        f"Seeds {results.seeds}; uncut {macs / 1e6:.1f} MMACs, test cross-test "
        f"{estimate(uncut):.3f} of paragon {paragon:.3f}, "
        + ", ".join(f"{1e3 * s:.3f} ms ({n} thread(s))" for n, s in start.items())
    )
    for share in SHARES:
        step = str(share)
        print(f"\n| {share:.0%} | MACs | params | val | test cross-test | ours − row |", end="")
        print("".join(f" ms ({n}) | of uncut |" for n in start))
        print("|---" * (6 + 2 * len(start)) + "|")
        ours = results.figures(OURS, step, "cross_test")
        for row in results.rows:
            cross = results.figures(row, step, "cross_test")
            margin = f"{estimate([a - b for a, b in zip(ours, cross, strict=True)]):.3f}"
            speed = results.latencies(row, step)
            print(
                f"| {row} | {statistics.mean(results.figures(row, step, 'macs')) / macs:.1%} "
                f"| {statistics.mean(results.figures(row, step, 'parameters')) / 1e3:.0f}k "
                f"| {estimate(results.figures(row, step, 'val')):.3f} | {estimate(cross):.3f} "
                f"| {'' if row == OURS else margin} |"
                + "".join(f" {1e3 * speed[n]:.3f} | {speed[n] / start[n]:.2f} |" for n in start)
            )


def plot(results: Results) -> Path:
    """Draw the test cross-test over MACs and over latency, a line for every row."""
    from plotly.subplots import make_subplots

    from nas.statistics.repeats import estimate

    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.03)
    colours = (
        "#2f7de1",
        "#7fb2f0",
        "#e08a00",
        "#f0bd70",
        "#d1588f",
        "#8a6fe8",
        "#9aa0a8",
        "#12a67c",
    )
    for row, colour in zip(results.rows, colours, strict=False):
        scores = [results.figures(row, str(share), "cross_test") for share in SHARES]
        costs = [statistics.mean(results.figures(row, str(s), "macs")) / 1e6 for s in SHARES]
        seconds = [results.latencies(row, str(share))["1"] * 1e3 for share in SHARES]
        for column, x in ((1, costs), (2, seconds)):
            figure.add_scatter(
                x=x,
                y=[statistics.mean(each) for each in scores],
                error_y={"array": [estimate(each).half or 0 for each in scores], "thickness": 1},
                name=row,
                legendgroup=row,
                showlegend=column == 1,
                line={"color": colour, "width": 3 if row == OURS else 1.5},
                row=1,
                col=column,
            )
    paragon = statistics.mean(results.figures("uncut", "1", "paragon"))
    means = sorted(y for line in figure.data for y in line.y)
    lowest = means[len(means) // 10]  # so that one failure does not flatten all else
    figure.update_yaxes(range=[lowest - 0.03, paragon + 0.01])
    figure.add_hline(paragon, line_dash="dot", line_color="#8b93a1", annotation_text="paragon")
    figure.update_xaxes(type="log", title_text="MMACs of one query", col=1)
    figure.update_xaxes(title_text="ms of one query, ONNX Runtime, 1 thread", col=2)
    figure.update_yaxes(title_text="cross-test mAP, test classes", col=1)
    figure.update_layout(template="plotly_white", width=1100, height=480, margin={"t": 20})
    path = results.out / "comparison.html"
    figure.write_html(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "latency", "table"])
    parser.add_argument("--data", help="images, as `querynas gallery build` takes them")
    parser.add_argument("--gallery", help="gallery folder of those images")
    parser.add_argument("--out", default="bench/pruning", help="folder of results")
    parser.add_argument("--network", default="resnet18", help="timm name")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--align-epochs", type=int, default=1)
    parser.add_argument("--round-epochs", type=int, default=1)
    parser.add_argument("--total-epochs", type=int, default=4)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, SCRATCH], default=[*ROWS, SCRATCH])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    options = parser.parse_args()
    if options.what == "train":
        setting = Setting(
            options.data,
            options.gallery,
            options.network,
            options.resolution,
            options.align_epochs,
            options.round_epochs,
            options.total_epochs,
            options.out,
        )
        train(setting, options.rows, options.seeds, options.processes)
        return
    results = Results.read(Path(options.out))
    if options.what == "latency":
        latency(results)
    else:
        table(results)
        print(f"\nPlot: {plot(results)}")


if __name__ == "__main__":
    main()
