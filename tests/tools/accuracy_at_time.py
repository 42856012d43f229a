"""Accuracy at equal time of fewer channels, zeros in blocks, and both: a table and a plot.

    python -m tests.tools.accuracy_at_time [--seeds 3] [--quick]

Trains the grid below for digits and for the harder numbers, each network with every seed, measures
the int8 files here and writes pipelines/README.md's table and pipelines/accuracy-at-time.svg.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, mean, stdev
from typing import Any

import yaml

import edgesparse
from edgesparse.measure.rows import Row
from tests.conftest import ROOT

PIPELINES = ROOT / "pipelines"
HEAD, END = "<!-- made by `make study` -->", "<!-- end of the study -->"
BASELINE = "dense-int8"
CHANNELS = (0.5, 0.25, 0.12)
BLOCKS = (0.7, 0.8, 0.9)
BOTH = ((0.5, 0.8), (0.5, 0.9), (0.25, 0.8))
"""Shares of multiply-accumulates that remain, of zeros, and pairs of them."""
FAMILIES = {"dense": "dense", "c": "channels", "b": "blocks of 2x4", "cb": "channels and blocks"}
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Student's t, 95 %, two-sided, by number of seeds."""


@dataclass(frozen=True)
class Point:
    """A network over its seeds: accuracy as a share, and speed relative to dense int8."""

    task: str
    variant: str
    accuracies: tuple[float, ...]
    speedups: tuple[float, ...]

    @property
    def family(self) -> str:
        return FAMILIES[self.variant.split("-")[0]]

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)

    @property
    def margin(self) -> float:
        """Half of the 95 % interval of the mean accuracy."""
        count = len(self.accuracies)
        if count < 2:
            return float("nan")
        return T95[count] * stdev(self.accuracies) / count**0.5

    @property
    def speedup(self) -> float:
        return geometric_mean(self.speedups)


def variants(fine_tune: dict[str, Any]) -> dict[str, Any]:
    """Return the grid as the variants of a pipeline."""

    def channels(macs: float) -> dict[str, Any]:
        return {"method": "channels", "macs": macs, "importance": "batch-norm", **fine_tune}

    def blocks(sparsity: float) -> dict[str, Any]:
        return {"method": "magnitude", "sparsity": sparsity, "pattern": "block-2x4", **fine_tune}

    steps: dict[str, Any] = {f"c-{macs}": channels(macs) for macs in CHANNELS}
    steps |= {f"b-{sparsity}": blocks(sparsity) for sparsity in BLOCKS}
    steps |= {f"cb-{macs}-{zeros}": [channels(macs), blocks(zeros)] for macs, zeros in BOTH}
    trained = {name: {"sparsify": step, "quantize": "int8"} for name, step in steps.items()}
    return {BASELINE: {"quantize": "int8"}, **trained}


def rows(pipeline: str, seed: int, folder: Path, quick: bool) -> list[Row]:
    """Train and measure the grid with one seed."""
    text = yaml.safe_load((PIPELINES / f"{pipeline}.yaml").read_text())
    fine_tune = {"epochs": 4, "learning_rate": 2.0e-3, "distill": True}
    text |= {
        "variants": variants(fine_tune),
        "train": text["train"] | {"seed": seed},
        "baseline": BASELINE,
        "release": "none",
    }
    text.pop("gates", None)
    path = folder / f"{pipeline}-{seed}.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    with edgesparse.Project(ROOT, listener=lambda event: None) as project:
        results = project.deploy(path, devices=["local"], quick=quick)
    return [row for row in results.rows if row.runtime.name == "ai-edge-litert"]


def study(seeds: int, quick: bool) -> list[Point]:
    """Return every network of both tasks."""
    points = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(PIPELINES / "examples.py", folder)
        for pipeline in ("digits", "numbers"):
            accuracies, speedups = defaultdict(list), defaultdict(list)
            for seed in range(1, seeds + 1):
                measured = {row.variant: row for row in rows(pipeline, seed, folder, quick)}
                baseline = measured[BASELINE].latency_ms
                for variant, row in measured.items():
                    if not (row.score and row.latency_ms and baseline):
                        raise RuntimeError(f"{variant}: {row.error}")
                    accuracies[variant].append(row.score.shown)
                    speedups[variant].append(baseline.p50 / row.latency_ms.p50)
            points += [
                Point(pipeline, variant, tuple(accuracies[variant]), tuple(speedups[variant]))
                for variant in accuracies
            ]
    return points


def table(points: list[Point]) -> str:
    """Return the points as a Markdown table, by task and speed."""
    lines = [
        "| task | network (int8) | speed-up vs dense int8 | accuracy %, 95 % CI |",
        "|---|---|---|---|",
    ]
    for point in sorted(points, key=lambda point: (point.task, point.speedup)):
        _, *numbers = point.variant.split("-")
        setting = "" if point.family == "dense" else " " + ", ".join(numbers)
        lines.append(
            f"| {point.task} | {point.family}{setting} | {point.speedup:.2f}x "
            f"| {100 * point.accuracy:.1f}±{100 * point.margin:.1f} |"
        )
    return "\n".join(lines)


def plot(points: list[Point], path: Path) -> None:
    """Draw accuracy over speed, one panel for each task."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(point.task for point in points))
    figure = Figure(figsize=(4.5 * len(tasks), 3.4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for family in FAMILIES.values():
            chosen = [p for p in points if p.task == task and p.family == family]
            chosen.sort(key=lambda point: point.speedup)
            axes.errorbar(
                [p.speedup for p in chosen],
                [100 * p.accuracy for p in chosen],
                [100 * p.margin for p in chosen],
                marker="o",
                capsize=2,
                label=family,
            )
        axes.set(title=task, xlabel="speed-up vs dense int8", ylabel="accuracy %", xscale="log")
        axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--quick", action="store_true", help="measure for a shorter time")
    options = parser.parse_args()
    points = study(options.seeds, options.quick)
    text = table(points)
    print(text)
    readme = PIPELINES / "README.md"
    written = f"{HEAD}\n{text}\n{END}"
    pattern = f"{re.escape(HEAD)}.*?{re.escape(END)}"
    readme.write_text(re.sub(pattern, lambda _: written, readme.read_text(), flags=re.S))
    plot(points, PIPELINES / "accuracy-at-time.svg")


if __name__ == "__main__":
    main()
