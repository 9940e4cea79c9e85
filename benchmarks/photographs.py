"""Query models for photographs: what each way to one is worth at equal compute.

    python benchmarks/photographs.py ROW --data D --gallery G --checkpoint FILE --out F
    python benchmarks/photographs.py ranking --data D --gallery G --checkpoint FILE --out F
    python benchmarks/photographs.py table --out F

The gallery is frozen, the backbone pretrained, classes of training, validation and test disjoint.
ROW is one of:

- `ridge`: the untrained backbone and a ridge map at each resolution, what ten lines of scikit-learn
  give.
- `fine-tuned`: from there, ten lines of PyTorch: the loss of `--loss`, AdamW, the whole backbone,
  BatchNorm as PyTorch trains it, each resolution a share of the budget.
- `kept`: the same with the pretrained BatchNorm statistics kept.
- `random`: as `kept`, but ten random slices of `timm-elastic`, each a share of the budget.
- `pruned`: `querynas search` with the route `pruned`.
- `prune`: `querynas prune` to each budget.
- `nest`: `querynas nest`, whose capacities are the models.
- `elastic`: `querynas search` with the space `timm-elastic`, whose slices are scored as they come
  and the most promising of them trained, in two rungs.

Every row is a process of its own on one core, and its seconds of that core are printed beside it:
`--budget` is how many the fine-tuning rows spend, `--epochs`, `--models` and `--trials` bring the
others near. `--by image` trains on images of all classes and holds out queries. `--without-labels`
names a manifest of the same images, without labels, for the study to see in place of `--data`; its
models are measured with the labels of `--data`. `--take-away` runs a study without one part of
what is the default for pretrained networks. `--unlabelled` gives every row that learns
further images, with their vectors in `--unlabelled-gallery`.

`ranking` draws 40 slices of `timm-elastic` at random, scores them as they come, and trains each of
them alone for `--epochs`: it prints how well slices order what training makes of them, beside MACs.

Everything is selected on validation classes; the table is of test classes: at each share of the
gallery model's MACs, the model with the best validation score of those within it. A finished row
leaves a JSON file, with the models in it; those of `docs/results.md` lie in
`benchmarks/photographs`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compat.tasks.training_set import TrainingSet
    from nas.study import Run
    from searchspaces import QueryModel

ROWS = ("ridge", "fine-tuned", "kept", "random", "pruned", "prune", "nest", "elastic")
PARTS: dict[str, dict[str, Any]] = {
    "start": {"projection": "random"},
    "loss": {"loss": "regression", "centred": False},
    "statistics": {"statistics": "trained"},
}
"""What a study says instead of the default, where a part of it is taken away."""
SHARES = (3, 6, 10, 20, 40)
RESOLUTIONS = (24, 32, 48, 64, 80)
"""Of the whole backbone; 96 px of EfficientNet-Lite0 exceed a third of the gallery's MACs."""
DRAWS, RANKED = 10, 40
BATCH, RATE = 64, 1e-3


class Bench:
    """The data of all rows, in this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from compat.tasks.further import open_unlabelled
        from compat.tasks.split import SplitConfig
        from compat.tasks.study_data import load_study_data
        from compat.tasks.unlabelled import UnlabelledConfig

        torch.set_num_threads(1)
        self.options = options
        split = SplitConfig(seed=options.seed, by=options.by)
        self.data = load_study_data(options.data, options.gallery, split)
        unlabelled = [UnlabelledConfig.model_validate(each) for each in self.unlabelled]
        self.further = open_unlabelled(unlabelled, self.data, Path(options.out))
        self.mixed: dict[int, bool] = {}

    @property
    def unlabelled(self) -> list[dict[str, str]]:
        """What a study file says of the further images."""
        options = self.options
        if not options.unlabelled:
            return []
        return [{"data": options.unlabelled, "gallery": options.unlabelled_gallery}]

    def measured(self, model: "QueryModel", val: float, how: str) -> dict[str, Any]:
        """What the table needs of a model; the test classes are looked at here alone."""
        from searchspaces import count_macs
        from searchspaces.timing import forward_seconds

        task = self.data.test
        found = task.cross_test(task.embed_queries(model))
        shape = (3, model.resolution, model.resolution)
        return {
            "how": how,
            "macs": count_macs(model.cpu(), model.resolution),
            "seconds": statistics.median(forward_seconds(model, shape, "onnxruntime")),
            "val": val,
            "test": found.map,
            "interval": list(found.interval),
        }

    def ridge(self) -> Iterator[dict[str, Any]]:
        for resolution in RESOLUTIONS:
            model = self.started(resolution)
            yield self.measured(model, self.val(model), f"{resolution} px")

    def fine_tuned(self, *, kept: bool) -> Iterator[dict[str, Any]]:
        for resolution in RESOLUTIONS:
            model = self.started(resolution)
            best = self.tuned(model, self.options.budget / len(RESOLUTIONS), kept=kept)
            yield self.measured(model, best, f"{resolution} px")

    def drawn(self) -> Iterator[dict[str, Any]]:
        """Random slices within a third of the gallery's MACs, each trained alone."""
        import random

        from searchspaces import create_space

        space = create_space("timm-elastic", **self.elastic)
        rng = random.Random(self.options.seed)
        dimension = self.data.gallery.dimension
        most = self.data.gallery.manifest.model_macs / SHARES[0]
        left = DRAWS
        while left:
            architecture = space.sample(rng)
            if space.macs(architecture, dimension) > most:
                continue
            left -= 1
            model = self.fitted(space.inherited(dimension).extract(architecture))
            best = self.tuned(model, self.options.budget / DRAWS, kept=True)
            yield self.measured(model, best, f"{model.resolution} px")

    def started(self, resolution: int) -> "QueryModel":
        from searchspaces import timm_query_model

        model = timm_query_model(
            self.options.backbone,
            self.data.gallery.dimension,
            resolution=resolution,
            checkpoint=self.options.checkpoint,
        )
        return self.fitted(model)

    def fitted(self, model: "QueryModel") -> "QueryModel":
        from nas.alignment.start import fit_projection

        fit_projection(model, self.training(model), seed=self.options.seed)
        return model

    def training(self, model: "QueryModel") -> "TrainingSet":
        """The training pictures at a model's resolution, mixed views where they help a ridge map.

        Studies decide this once, at their middle resolution.
        """
        from nas.alignment.mapping import gains_by_mixed

        resolution, seed = model.resolution, self.options.seed
        training = self.data.training(resolution, self.further)
        if resolution not in self.mixed:
            self.mixed[resolution] = bool(training.mixed) and gains_by_mixed(
                model, self.data, self.further, seed=seed
            )
        return training if self.mixed[resolution] else training.alone()

    def tuned(self, model: "QueryModel", seconds: float, *, kept: bool) -> float:
        """Fine-tune in place for so many seconds of a core; the best epoch's validation score."""
        import torch

        from compat.losses import create_loss
        from nas.config.alignment import PRETRAINED_LOSS

        training = self.training(model)
        criterion = create_loss(
            self.options.loss or PRETRAINED_LOSS,
            training.targets,
            centred=None,
            seed=self.options.seed,
        )
        parameters = [*model.parameters(), *criterion.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.02)
        begun, epoch, best = time.process_time(), 0, self.val(model)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        device = torch.device("cpu")
        while (share := (time.process_time() - begun) / seconds) < 1:
            epoch += 1
            model.train()
            for module in model.modules():
                if kept and isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
            for images, batch in training.epoch(BATCH, seed=epoch, device=device):
                share = (time.process_time() - begun) / seconds
                for group in optimizer.param_groups:
                    group["lr"] = RATE * max(0.0, 1 - share)
                loss = criterion(model(images), batch.vectors, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            score = self.val(model)
            print(f"{model.resolution} px, epoch {epoch}: validation {score:.4f}", flush=True)
            if score > best:
                best, state = score, {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(state)
        return best

    def val(self, model: "QueryModel") -> float:
        return self.data.val.cross_test(self.data.val.embed_queries(model)).map

    def searched(self, row: str) -> Iterator[dict[str, Any]]:
        """The front of a study that the command line ran."""
        run = self.study_run(row)
        for record in run.front():
            how = f"trial {record.trial}, {record.fidelity}"
            yield self.measured(run.model(record), record.accuracy, how)

    @property
    def elastic(self) -> dict[str, Any]:
        return {
            "backbone": self.options.backbone,
            "checkpoint": str(Path(self.options.checkpoint).resolve()),
            "resolutions": [32, 48, 64, 80, 96],
            "widths": [0.75, 0.875, 1.0],
        }

    def study_run(self, row: str) -> "Run":
        from nas.study import Run

        study = Path(self.options.out) / f"{self.name(row)}.json"  # JSON is YAML too
        study.write_text(json.dumps(self.study(row), indent=1))
        folder = Path(self.options.out) / self.name(row)
        command(["search", str(study), "--out", str(folder)])
        return Run.open(folder)

    def ranking(self) -> None:
        """Kendall's tau of slices' scores, and of MACs, with scores after training alone."""
        run = self.study_run("ranking")
        records = {r.trial: r for r in run.records()}
        pairs = [(records[r.parent], r) for r in records.values() if r.parent is not None]
        columns = [
            (before.accuracy, before.macs, after.accuracy)
            for before, after in sorted(pairs, key=lambda pair: pair[0].trial)
        ]
        for words, value, (low, high) in taus(columns):
            print(f"{words}: {value:.3f} ({low:.3f} to {high:.3f}), {len(columns)} slices")

    def study(self, row: str) -> dict[str, Any]:
        options = self.options
        first, last = options.models
        training = {"batch": BATCH, "lr": RATE, "validate_every": 1, "ema": 0.95}
        macs = self.data.gallery.manifest.model_macs
        trials = {"trials": options.trials, "start": 20, "sampler": "tpe"}
        finish = [
            {"models": first, "equal": "macs", "training": {"epochs": 1, **training}},
            {"models": last, "equal": "macs", "training": {"epochs": options.epochs, **training}},
        ]
        if row == "ranking":
            trials = {"trials": RANKED, "start": 0, "sampler": "random"}
            finish = [{"models": RANKED, "training": {"epochs": options.epochs, **training}}]
        if row == "pruned":
            space = {
                "route": "pruned",
                "backbone": options.backbone,
                "checkpoint": self.elastic["checkpoint"],
                "training": {"epochs": options.epochs, **training},
                "realign": {"epochs": 1, **training},
                "options": {"resolutions": list(RESOLUTIONS)},
            }
        else:
            space = {
                "route": "supernet",
                "space": "timm-elastic",
                "options": self.elastic,
                "calibration_images": 2048,
                "training": {"epochs": 0},
            }
        return {
            "data": options.without_labels or options.data,
            "gallery": options.gallery,
            "spaces": {row: space},
            **trials,
            "loss": options.loss,
            "unlabelled": self.unlabelled,
            "budget": {"max_macs": int(macs / SHARES[0])},
            "tiers": [int(macs / share) for share in SHARES],
            "finish": finish,
            "split": {"seed": options.seed, "by": options.by},
            "seed": options.seed,
            **PARTS.get(options.take_away, {}),
        }

    def cut(self) -> Iterator[dict[str, Any]]:
        """What `querynas prune` makes of the backbone at 96 px for each budget."""
        from nas.study import Run

        options = self.options
        for share in SHARES[1:]:
            target = f"{self.data.gallery.manifest.model_macs / share / 1e6:.2f}M"
            folder = Path(options.out) / f"{self.name('prune')}-{share}"
            given = {
                "checkpoint": options.checkpoint,
                "gallery": options.gallery,
                "data": options.data,
                "target": target,
                "resolution": 96,
                "align-epochs": 2,
                "rounds": 3,
                "epochs": 1,
                "finish-epochs": 2,
                "batch": BATCH,
                "seed": options.seed,
                "out": folder,
            }
            if options.loss:
                given["loss"] = json.dumps(options.loss)
            if self.unlabelled:
                given["unlabelled"] = json.dumps(self.unlabelled[0])
            words = [str(w) for name, value in given.items() for w in (f"--{name}", value)]
            command(["prune", options.backbone, *words])
            run = Run.open(folder)
            record = run.records()[-1]
            yield self.measured(run.model(record), record.cross_test, target)

    def nested(self) -> Iterator[dict[str, Any]]:
        """What `querynas nest` makes of the backbone at 80 px: a model for each capacity."""
        from nas.recipes import Nest

        options = self.options
        folder = Path(options.out) / self.name("nest")
        given = {
            "checkpoint": options.checkpoint,
            "gallery": options.gallery,
            "data": options.data,
            "resolution": RESOLUTIONS[-1],
            "capacities": "20,40,60,80,100",
            "epochs": options.epochs,
            "batch": BATCH,
            "seed": options.seed,
            "out": folder,
        }
        words = [str(w) for name, value in given.items() for w in (f"--{name}", value)]
        command(["nest", options.backbone, *words])
        nest = Nest.open(folder)
        for capacity in nest.model.capacities:
            model = nest.extract(capacity)
            yield self.measured(model, self.val(model), f"{capacity:.0%}")

    def name(self, row: str) -> str:
        options = self.options
        words = [
            Path(options.data).name,
            *(["image"] if options.by == "image" else []),
            *(["unlabelled"] if self.further else []),
            *(["without-labels"] if options.without_labels else []),
            *([f"without-{options.take_away}"] if options.take_away else []),
            options.backbone,
            row,
            str(options.seed),
        ]
        return "-".join(words)

    def run(self, row: str) -> None:
        kinds = {
            "ridge": self.ridge,
            "fine-tuned": lambda: self.fine_tuned(kept=False),
            "kept": lambda: self.fine_tuned(kept=True),
            "random": self.drawn,
            "prune": self.cut,
            "nest": self.nested,
        }
        models = list(kinds.get(row, lambda: self.searched(row))())
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        content = {
            "data": Path(self.options.data).name,
            "by": self.options.by,
            "without": self.options.take_away
            or ("labels" if self.options.without_labels else None),
            "unlabelled": Path(self.options.unlabelled or "").stem or None,
            "backbone": self.options.backbone,
            "row": row,
            "loss": self.options.loss,
            "seed": self.options.seed,
            "seconds": sum(each.ru_utime + each.ru_stime for each in used),
            "gallery macs": self.data.gallery.manifest.model_macs,
            "paragon": self.data.test.paragon.map,
            "paragon val": self.data.val.paragon.map,
            "models": models,
        }
        file = Path(self.options.out) / f"{self.name(row)}.result.json"
        file.write_text(json.dumps(content, indent=1))
        print(f"{file}: {len(models)} models in {content['seconds']:.0f} s of a core")


def taus(
    columns: Sequence[tuple[float, float, float]],
) -> Iterator[tuple[str, float, tuple[float, float]]]:
    """Tau-b of the first and of the second with the third, and their difference.

    With 95% intervals: percentiles over 2,000 bootstrap draws of the slices.
    """
    import numpy as np
    from scipy.stats import kendalltau

    values = np.array(columns)
    rng = np.random.default_rng(0)
    draws = [np.arange(len(values)), *rng.integers(len(values), size=(2000, len(values)))]
    found = np.array(
        [
            [kendalltau(v[:, i], v[:, 2]).statistic for i in (0, 1)]
            for v in (values[rows] for rows in draws)
        ]
    )
    found = np.column_stack([found, found[:, 0] - found[:, 1]])
    for words, column in zip(("slices", "MACs", "slices above MACs"), found.T, strict=True):
        low, high = np.percentile(column[1:], [2.5, 97.5])
        yield words, float(column[0]), (float(low), float(high))


def command(arguments: list[str]) -> None:
    """Run `querynas` as a user does, on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = "from nas.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment)


def table(out: Path) -> None:
    """Print, for each data set and backbone, the rows' test cross-tests by share of MACs."""
    results = [json.loads(file.read_text()) for file in sorted(out.glob("*.result.json"))]
    keys = ("data", "by", "backbone")
    for key in sorted({tuple(r[k] for k in keys) for r in results}):
        rows = [r for r in results if tuple(r[k] for k in keys) == key]
        print(f"\n{', '.join(key)}; paragon {rows[0]['paragon']:.3f} (test part)\n")
        print("| row | seed | s of a core | area |" + "".join(f" 1/{share} |" for share in SHARES))
        print("|---|---:|---:|---:|" + "---:|" * len(SHARES))
        for row in sorted(rows, key=lambda r: (ROWS.index(r["row"]), _name(r), r["seed"])):
            cells = [_cell(row, row["gallery macs"] / share) for share in SHARES]
            seconds, area = f"{row['seconds']:.0f}", f"{_area(row):.3f}"
            print(f"| {_name(row)} | {row['seed']} | {seconds} | {area} | {' | '.join(cells)} |")


def _name(row: dict[str, Any]) -> str:
    words = [row["row"]]
    words += ["unlabelled"] if row["unlabelled"] else []
    words += [f"without {row['without']}"] if row["without"] else []
    return ", ".join(words)


def _cell(row: dict[str, Any], most: float) -> str:
    best = _best(row, most)
    if best is None:
        return "–"
    low, high = best["interval"]
    share, milliseconds = best["test"] / row["paragon"], 1e3 * best["seconds"]
    return f"{best['test']:.3f} ({share:.0%}; {low:.3f} to {high:.3f}; {milliseconds:.1f} ms)"


def _best(row: dict[str, Any], most: float) -> dict[str, Any] | None:
    within = [model for model in row["models"] if model["macs"] <= most]
    return max(within, key=lambda model: model["val"], default=None)


def _area(row: dict[str, Any]) -> float:
    """The hypervolume: mean share of the paragon over log-budgets from 1/40 to 1/3, 0 to 1.

    At each budget the model with the best validation score of those within it counts.
    """
    import numpy as np

    budgets = row["gallery macs"] / np.geomspace(SHARES[-1], SHARES[0], 1000)
    found = (_best(row, budget) for budget in budgets)
    return float(np.mean([0.0 if best is None else best["test"] for best in found])) / float(
        row["paragon"]
    )


def loss(text: str) -> str | dict[str, Any]:
    """A loss as study files name it; with options as JSON."""
    return json.loads(text) if text.startswith("{") else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=[*ROWS, "ranking", "table"])
    parser.add_argument("--data", help="photographs in a folder per class")
    parser.add_argument("--gallery", help="gallery folder of those photographs, with views")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--checkpoint", help="its published weights")
    parser.add_argument("--out", default="bench/photographs", help="folder of results")
    parser.add_argument("--budget", type=float, default=900, help="seconds of one core")
    parser.add_argument("--epochs", type=int, default=4, help="of the last trainings of a study")
    parser.add_argument("--models", type=int, nargs=2, default=(8, 4), help="of a study's rungs")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--unlabelled", help="further images for every row that learns")
    parser.add_argument("--unlabelled-gallery", help="gallery folder of theirs")
    parser.add_argument("--by", choices=("class", "image"), default="class")
    parser.add_argument("--without-labels", help="a manifest of the same images, without labels")
    parser.add_argument("--take-away", choices=PARTS, help="of the row elastic")
    parser.add_argument("--loss", type=loss, default=None, help="of all rows that train")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    if options.row == "table":
        table(Path(options.out))
    elif options.row == "ranking":
        Bench(options).ranking()
    else:
        Bench(options).run(options.row)


if __name__ == "__main__":
    main()
