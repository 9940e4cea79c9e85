"""The parts of the benchmark: each trains, searches or scores, and leaves its files."""

import json
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial
from quality.bench import Bench, Clock, fresh, timed
from quality.setting import (
    FIRST,
    GRID,
    OPTIONS,
    SHORT,
    SPACE,
    SUPERNET_RATE,
    TIMED,
    Setting,
    architectures,
    keep,
    space,
    training,
)
from safetensors.torch import load_file
from tqdm import tqdm

from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from nas.candidates.predicting import predictions
from nas.config.study import StudyConfig, SupernetConfig
from nas.study.run import Run
from nas.study.trials import search
from searchspaces import Architecture, QueryModel, Supernet, timm_query_model


def train_truth(setting: Setting, index: int) -> None:
    """Train one architecture alone."""
    file = setting.file(f"truth-{index:03d}")
    if file.exists():
        return
    bench = Bench(setting, seed=0)
    architecture = architectures(setting.count, bench.dimension)[index]
    figures = bench.alone(fresh(architecture, bench), f"architecture {index}")
    kind = "uniform" if index < setting.count // 2 else "spread"
    keep(file, {"kind": kind, "params": dict(architecture.params), **figures})


def study(setting: Setting, seed: int, *, trials: int, ladder: bool) -> StudyConfig:
    """The study file of a search of the benchmark."""
    full = training(setting.epochs)
    return StudyConfig.model_validate(
        {
            "data": setting.data,
            "gallery": setting.gallery,
            "spaces": {
                SPACE: {
                    "route": "supernet",
                    "space": "mbconv",
                    "options": OPTIONS,
                    "random_subnetworks": 4,
                    "training": {
                        "epochs": setting.supernet_epochs,
                        "lr": SUPERNET_RATE,
                        "validate_every": 5,
                    },
                }
            },
            "trials": trials,
            "start": 24,
            "seed": seed,
            "finish": [
                {"models": setting.short, "training": rate(training(SHORT))},
                {"models": setting.full, "training": rate(full)},
            ]
            if ladder
            else [],
        }
    )


def rate(config: TrainingConfig) -> dict[str, Any]:
    """A training of weights that are in the gallery space already."""
    return {**config.model_dump(mode="json"), "lr": 1.5e-3}


def supernet(setting: Setting, seed: int) -> float:
    """Train a seed's supernet in the run folder of our search; returns its compute."""
    done = setting.file(f"supernet-{seed}")
    if not done.exists():
        folder = Path(setting.out) / f"ours-{seed}"
        shutil.rmtree(folder, ignore_errors=True)  # its compute counts from the start
        clock = Clock()
        run = Run.create(folder, study(setting, seed, trials=1, ladder=True))
        run.save()
        run.prepare()
        keep(done, clock())
        shutil.copytree(folder / "shared", Path(setting.out) / f"nsga2-{seed}" / "shared")
    return float(json.loads(done.read_text()))


def search_ours(setting: Setting, seed: int) -> None:
    """Our search: NSGA-II on shared weights, then two rungs of alignment."""
    file = setting.file(f"front-ours-{seed}")
    if file.exists():
        return
    spent = supernet(setting, seed)
    clock = Clock()
    folder = Path(setting.out) / f"ours-{seed}"
    run = search(study(setting, seed, trials=setting.candidates, ladder=True), folder)
    scores = [
        {"trial": r.trial, "parent": r.parent, "val": r.cross_test, "macs": r.macs}
        | {"params": dict(r.architecture.params), "fidelity": r.fidelity}
        for r in run.records()
    ]
    keep(setting.file(f"scores-{seed}"), scores)
    keep(file, delivered(run, setting, spent, clock))


def search_shared(setting: Setting, seed: int) -> None:
    """NSGA-II on shared weights and nothing else, until the compute is spent."""
    file = setting.file(f"front-nsga2-{seed}")
    if file.exists():
        return
    spent = supernet(setting, seed)
    folder = Path(setting.out) / f"nsga2-{seed}"
    for old in folder.glob("study.db*"):  # its compute counts from the start
        old.unlink()
    clock = Clock()
    search(study(setting, seed, trials=FIRST, ladder=False), folder)
    trials = round((setting.budget - spent) / clock() * FIRST)
    run = search(study(setting, seed, trials=trials, ladder=False), folder)
    keep(file, delivered(run, setting, spent, clock))


def delivered(run: Run, setting: Setting, spent: float, clock: Clock) -> list[dict[str, Any]]:
    """Every model that a run ever had on its front, with when it came and its test score."""
    bench = Bench(setting, run.config.seed)
    trials: list[FrozenTrial] = run.study.get_trials(deepcopy=False)
    rows: list[dict[str, Any]] = []
    records = sorted(run.records(), key=lambda r: trials[r.trial].datetime_complete or 0)
    for record in tqdm(records, desc="test"):
        if any(r["macs"] <= record.macs and r["val"] >= record.cross_test for r in rows):
            continue
        ended = trials[record.trial].datetime_complete
        assert ended is not None
        rows.append(
            {
                "trial": record.trial,
                "parent": record.parent,
                "fidelity": record.fidelity,
                "params": dict(record.architecture.params),
                "macs": record.macs,
                "val": record.cross_test,
                "test": bench.test(run.model(record)),
                "seconds": spent + clock.at(ended.timestamp()),
            }
        )
    return rows


def train_grid(setting: Setting, seed: int) -> None:
    """Train timm models alone, the smallest first, until the compute is spent."""
    spent = 0.0
    for index, (name, side) in enumerate(GRID):
        if spent >= setting.budget:
            return
        file = setting.file(f"grid-{seed}-{index:02d}")
        if not file.exists():
            bench = Bench(setting, seed, side=side)
            torch.manual_seed(seed)
            model = timm_query_model(name, bench.dimension, resolution=side, pretrained=False)
            keep(file, {"name": f"{name} at {side} px", **bench.alone(model, name)})
        spent += json.loads(file.read_text())["seconds"]


def retrain(setting: Setting, seed: int, index: int) -> None:
    """Train an architecture of the front that our search found alone, from random weights."""
    file = setting.file(f"alone-{seed}-{index}")
    rows = setting.read(f"front-ours-{seed}")
    finished = [row for row in rows if row["fidelity"] == "finished"]
    if file.exists() or index >= len(finished):
        return
    row = finished[index]
    before = {each["trial"]: each for each in setting.read(f"scores-{seed}")}
    promised = before[before[row["parent"]]["parent"]]
    bench = Bench(setting, seed)
    model = fresh(Architecture("mbconv", row["params"]), bench)
    figures = bench.alone(model, f"front {index} alone")
    keep(file, {"promised": promised["val"], "finished": row, **figures})


def rungs(setting: Setting, first: int, step: int) -> None:
    """Score a share of the truth's architectures in all cheaper ways without shared weights."""
    bench = Bench(setting, seed=0)
    chosen = architectures(setting.count, bench.dimension)
    for index in tqdm(range(first, setting.count, step), desc="rungs"):
        file = setting.file(f"rung-{index:03d}")
        if file.exists():
            continue
        model = fresh(chosen[index], bench)
        found = {
            "predictors": timed(partial(predictions, model, bench.data)),
            "alone": timed(partial(aligned, bench.aligner, model)),
        }
        keep(file, found)


def score_shared(setting: Setting, seed: int) -> None:
    """Score the truth's architectures on the shared weights of one supernet.

    Each thrice: adapted as the search does it, with adaptive BN alone, and after a short alignment.
    """
    file = setting.file(f"shared-{seed}")
    if file.exists():
        return
    run = Run.open(Path(setting.out) / f"ours-{seed}")
    run.prepare()
    chosen = architectures(setting.count, run.data.gallery.dimension)
    supernet = space().supernet(run.data.gallery.dimension)
    supernet.load_state_dict(load_file(run.shared / f"{SPACE}.safetensors"))
    shared(run, chosen[0])  # the first one waits for caches
    rows = []
    for each in tqdm(chosen, desc="shared"):
        row = timed(partial(shared, run, each))
        row["as trained"] = timed(partial(unadapted, run, supernet, each))
        model = run.routes[SPACE].candidate(each, run.aligner).model
        row["aligned"] = timed(partial(aligned, run.aligner, model, lr=1.5e-3))
        rows.append(row)
    keep(file, rows)


def time_both(setting: Setting, index: int) -> None:
    """Time a training alone and scores on shared weights of one architecture, side by side."""
    file = setting.file(f"cost-{index:03d}")
    if file.exists():
        return
    bench = Bench(setting, seed=0)
    run = Run.open(Path(setting.out) / "ours-0")
    run.prepare()
    architecture = architectures(setting.count, bench.dimension)[index]
    model = fresh(architecture, bench)
    score = partial(shared, run, architecture)
    score()  # the first one waits for caches
    scores = [timed(score)["seconds"] for _ in range(TIMED)]
    alone = timed(partial(bench.aligner.align, model, training(setting.epochs), quiet=True))
    scores += [timed(score)["seconds"] for _ in range(TIMED)]
    keep(file, {"alone": alone["seconds"], "shared": statistics.median(scores)})


def shared(run: Run, architecture: Architecture) -> float:
    """Validation cross-test on shared weights."""
    return run.aligner.cross_test(run.routes[SPACE].candidate(architecture, run.aligner).model)


def unadapted(run: Run, supernet: Supernet, architecture: Architecture) -> float:
    """The same with adaptive BN alone: the projection stays the one that all share."""
    config = run.config.spaces[SPACE]
    assert isinstance(config, SupernetConfig)
    model = supernet.extract(architecture).to(run.aligner.device)
    run.aligner.calibrate(model, config.calibration_images)
    return run.aligner.cross_test(model)


def aligned(aligner: Aligner, model: QueryModel, lr: float = 3e-3) -> float:
    """Validation cross-test after a short alignment."""
    config = training(SHORT).model_copy(update={"lr": lr})
    return aligner.align(model, config, quiet=True).best
