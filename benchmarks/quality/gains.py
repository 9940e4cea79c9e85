"""What screening and a warm start add to a search on shared weights, by the candidates scored.

The other gallery of the warm start is the gallery reduced by PCA: a space of its own.
"""

import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from quality import parts
from quality.bench import Clock
from quality.results import Results, front, hypervolume
from quality.setting import Setting, keep

from compat.gallery import GallerySpace, reduce_gallery
from nas.config.study import StudyConfig
from nas.statistics.repeats import estimate
from nas.study.trials import search

REDUCED = 64  # dimensions of the other gallery
SHORTER = 2  # epochs of a supernet that may begin with another one's weights


@dataclass(frozen=True)
class Way:
    """One way to search on shared weights.

    Attributes:
        title: For the table.
        doubt: Of the screen; None for no screen.
        reduced: Whether to search in the reduced gallery, with a supernet of its own.
        short: Whether that supernet is trained for `SHORTER` epochs only.
        warm: Whether it begins with what our search left for the whole gallery.
    """

    title: str
    doubt: float | None = None
    reduced: bool = False
    short: bool = False
    warm: bool = False


WAYS = {
    "all": Way("every proposal is scored"),
    "doubt-01": Way("screened, doubt 0.1", doubt=0.1),
    "doubt-03": Way("screened, doubt 0.3", doubt=0.3),
    "fresh": Way("reduced gallery", reduced=True),
    "fresh-short": Way(f"the same, {SHORTER} epochs", reduced=True, short=True),
    "warm-short": Way(
        f"the same, {SHORTER} epochs, warm start", reduced=True, short=True, warm=True
    ),
}


def gain(setting: Setting, name: str, seed: int) -> None:
    """Search on shared weights in one of these ways, for twice as many candidates as ours."""
    file = setting.file(f"gain-{name}-{seed}")
    if file.exists():
        return
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    way, earlier = WAYS[name], Path(setting.out) / f"ours-{seed}"
    folder = Path(setting.out) / f"gain-{name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # its compute counts from the start
    if way.reduced:
        gallery = folder.with_name(f"{folder.name}-gallery")
        shutil.rmtree(gallery, ignore_errors=True)
        reduce_gallery(GallerySpace.open(setting.gallery), gallery, dimension=REDUCED)
        setting = replace(setting, gallery=str(gallery))
    else:
        shutil.copytree(earlier / "shared", folder / "shared")
    if way.short:
        setting = replace(setting, supernet_epochs=SHORTER)
    content = parts.study(setting, seed, trials=2 * setting.candidates, ladder=False).model_dump(
        mode="json"
    )
    if way.doubt is not None:
        content["screen"] = {"doubt": way.doubt}
    if way.warm:
        content["warm_start"] = str(earlier)
    clock = Clock()
    run = search(StudyConfig.model_validate(content), folder)
    scored = [{"macs": each.macs, "val": each.cross_test} for each in run.records()]
    proposed = len(run.study.get_trials(deepcopy=False))
    keep(file, {"seconds": clock(), "proposed": proposed, "scored": scored})


def gains(results: Results) -> None:
    """Print the hypervolume of validation scores on shared weights by candidates scored."""
    reach = (min(r["macs"] for r in results.truth), max(r["macs"] for r in results.truth))
    steps = [round(2 * results.setting.candidates * share) for share in (0.25, 0.5, 0.75, 1)]
    print("\n| hypervolume of validation scores on shared weights after |", end="")
    print("".join(f" {step} scored |" for step in steps) + " proposed | seconds |")
    print("|---" * (3 + len(steps)) + "|")
    for name, way in WAYS.items():
        found = results.by_seed(f"gain-{name}-{{}}")
        if not found:
            continue
        volumes = [
            [hypervolume(front(each["scored"][:step]), reach, score="val") for each in found]
            for step in steps
        ]
        ends = [statistics.mean(each[key] for each in found) for key in ("proposed", "seconds")]
        cells = [f"{estimate(each):.3f}" for each in volumes] + [f"{end:.0f}" for end in ends]
        print(f"| {way.title} | " + " | ".join(cells) + " |")
