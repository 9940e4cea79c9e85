"""Tables of results, and the truth in one compact file."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from quality.results import Results, best_within, front, hypervolume
from quality.setting import ORDERS, SEEDS, Setting
from scipy.stats import kendalltau, spearmanr

from nas.statistics.repeats import estimate
from searchspaces.support.files import write_atomically


def table(results: Results) -> None:
    truth = [row["test"] for row in results.truth]
    cost = statistics.median(row["seconds"] for row in results.truth)
    print(f"Truth: {len(truth)} architectures, {cost:.0f} s each (median).\n")
    print("| way | Kendall τ | Spearman | uniform draws alone, τ | seconds | × cheaper |")
    print("|---" * 6 + "|")
    half = len(truth) // 2
    for name, (scores, seconds) in results.ways().items():
        cheaper = f"{cost / seconds:.0f}" if seconds else ""
        print(
            f"| {name} | {kendalltau(scores, truth).statistic:.3f} "
            f"| {spearmanr(scores, truth).statistic:.3f} "
            f"| {kendalltau(scores[:half], truth[:half]).statistic:.3f} "
            f"| {seconds:.2f} | {cheaper} |"
        )
    costs = results.costs()
    if costs:
        ratios = [each["alone"] / each["shared"] for each in costs]
        alone, shared = (sum(each[name] for each in costs) for name in ("alone", "shared"))
        print(
            "\nTimed side by side, a training alone took "
            f"{statistics.median(ratios):.0f} times what a score on shared weights takes "
            f"({min(ratios):.0f} to {max(ratios):.0f} over {len(ratios)} architectures, "
            f"{alone / shared:.0f} together)."
        )
    reach = (min(r["macs"] for r in results.truth), max(r["macs"] for r in results.truth))
    budget = results.setting.budget
    shares = (0.25, 0.5, 0.75, 1.0)
    print("\n| hypervolume of the test scores after |", end="")
    print("".join(f" {share * budget:.0f} s |" for share in shares) + " models |")
    print("|---" * (2 + len(shares)) + "|")
    for name, seeds in results.fronts().items():
        cells = []
        for share in shares:
            found = [front([r for r in rows if r["seconds"] <= share * budget]) for rows in seeds]
            volumes = [hypervolume(rows, reach) for rows in found]
            cells.append(band(volumes) if len(seeds) == ORDERS else f"{estimate(volumes):.3f}")
        count = statistics.mean(len(rows) for rows in found)
        print(f"| {name} | " + " | ".join(cells) + f" | {count:.0f} |")
    true = front(results.truth)
    print(f"\nFront of the truth itself: {hypervolume(true, reach):.3f} ({len(true)} models).")
    for seed, rows in zip(SEEDS, results.by_seed("front-ours-{}"), strict=False):
        mine = front([r for r in rows if r["seconds"] <= budget])
        gaps = [row["test"] - best_within(mine, row["macs"]) for row in true]
        print(
            f"Seed {seed}: within the MACs of each true member ours offers "
            f"{-statistics.mean(gaps):+.3f} on average, {-max(gaps):+.3f} at worst."
        )
    promises(results.setting)


def promises(setting: Setting) -> None:
    """How the front's architectures do when they are trained alone, against what was promised."""
    rows = [json.loads(file.read_text()) for file in Path(setting.out).glob("alone-*.json")]
    if not rows:
        return
    for name, promised in (
        ("shared weights promised", [row["promised"] for row in rows]),
        ("the ladder reached", [row["finished"]["val"] for row in rows]),
    ):
        gaps = [row["val"] - each for row, each in zip(rows, promised, strict=True)]
        print(
            f"{len(rows)} architectures of the fronts trained alone, against what {name} "
            f"(validation): {statistics.mean(gaps):+.3f} on average, mean absolute gap "
            f"{statistics.mean(map(abs, gaps)):.3f}, worst {min(gaps):+.3f}."
        )


def band(values: Sequence[float]) -> str:
    """Mean and standard deviation over random orders."""
    return f"{statistics.mean(values):.3f} (sd {statistics.stdev(values):.3f})"


def store(results: Results) -> Path:
    """Write the truth and all scores of its architectures in one compact file."""
    ways = results.ways()
    rows = [
        {
            **{name: row[name] for name in ("kind", "params", "macs", "parameters")},
            **{name: round(row[name], 4) for name in ("val", "test", "seconds")},
            "scores": {name: round(float(scores[i]), 4) for name, (scores, _) in ways.items()},
        }
        for i, row in enumerate(results.truth)
    ]
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    path = Path(results.setting.out) / "truth.json"
    write_atomically(path, lambda file: file.write_text(text))
    return path
