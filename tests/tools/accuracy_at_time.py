"""Accuracy at equal time of fewer channels, zeros in blocks, and both: a table and a plot.

    python -m tests.tools.accuracy_at_time [--seeds 7 1 2] [--only TASK]

Trains the grid below with each seed, measures the int8 files of the first seed here (zeros are as
many with every seed) and writes pipelines/README.md's table and pipelines/accuracy-at-time.svg.
Trained networks stay in the project's store: a second call only measures.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib.figure import Figure

import edgesparse
from edgesparse.graph import events
from edgesparse.measure.rows import Row, Speedup
from edgesparse.measure.statistics import half_width
from tests.conftest import ROOT

README = ROOT / "pipelines" / "README.md"
PLOT = README.with_name("accuracy-at-time.svg")
HEAD, END = "<!-- made by `make study` -->", "<!-- end of the study -->"
BEFORE = "## What the shipped pipelines give"
INTRODUCTION = f"""## Accuracy at equal time

What a speed costs in accuracy by fewer channels, by zeros in blocks of 2x4, and by both. `make
study` trains every network of the table with each seed; the steps are those of
[digits.yaml](digits.yaml) with other settings. The second task is hard: 100 classes, two
handwritten digits in clutter, for a MobileNet of six blocks
([two_digits.py](../tests/tools/two_digits.py)). All are int8 and run by ai-edge-litert in one
thread; the speed-up is over dense int8 in XNNPACK, the accuracy the mean of the seeds on the test
split, with its 95 % interval. Each step is fine-tuned, for 5 to 8 epochs on digits and 12 on the
hard task, after the dense network's 5 and 10 epochs: so a network with zeros can be better than the
dense one.

![Accuracy over speed-up]({PLOT.name})
"""
BASELINE = "dense-int8"
RUNTIME = "ai-edge-litert"
DEVICE = {
    "name": "local",
    "connect": {"local": {}},
    "workdir": "~/.cache/edgesparse",
    "runtimes": [RUNTIME],
}
Grid = dict[str, list[tuple[float, ...]]]
GRIDS: dict[str, Grid] = {
    "digits": {"channels": [(0.4,), (0.15,)], "blocks": [(0.9,)], "both": [(0.4, 0.9)]},
    "two digits in clutter": {
        "channels": [(0.5,), (0.25,)],
        "blocks": [(0.8,), (0.9,)],
        "both": [(0.5, 0.9)],
    },
}
"""Settings by task and family: the share of multiply-accumulates that remains, the share of zeros
in blocks of 2x4, or both."""
LABELS = {
    "dense": "dense",
    "channels": "fewer channels",
    "blocks": "blocks of zeros",
    "both": "channels, then blocks",
}


@dataclass(frozen=True)
class Point:
    """A network with its accuracy (a share) of each seed, and its speed-up over dense int8."""

    task: str
    family: str
    setting: tuple[float, ...]
    accuracies: tuple[float, ...]
    speedup: Speedup

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)

    @property
    def margin(self) -> float | None:
        """Half of the 95 % interval of the mean over seeds; None of a single seed."""
        count = len(self.accuracies)
        if count < 2:
            return None
        return half_width(count - 1) * stdev(self.accuracies) / count**0.5

    @property
    def label(self) -> str:
        """The family and its setting, as in `channels, then blocks: 50 % of MACs, 80 % zeros`."""
        kinds = {"channels": ["of MACs"], "blocks": ["zeros"], "both": ["of MACs", "zeros"]}
        shares = zip(self.setting, kinds.get(self.family, []), strict=True)
        text = ", ".join(f"{share:.0%} {kind}".replace("%", " %") for share, kind in shares)
        return LABELS[self.family] + (f": {text}" if text else "")


def name_of(family: str, setting: Iterable[float]) -> str:
    return "-".join([family, *map(str, setting)])


def variants(grid: Grid, channels: dict[str, Any], blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the grid as variants of a pipeline, from the steps of digits.yaml.

    Args:
        blocks: the step for blocks alone, and that after channels.
    """
    alone, after = blocks
    steps: dict[str, Any] = {
        "channels": lambda macs: channels | {"macs": macs},
        "blocks": lambda zeros: alone | {"sparsity": zeros},
        "both": lambda macs, zeros: [channels | {"macs": macs}, after | {"sparsity": zeros}],
    }
    named = {
        name_of(family, setting): {"sparsify": steps[family](*setting), "quantize": "int8"}
        for family, settings in grid.items()
        for setting in settings
    }
    return {BASELINE: {"quantize": "int8"}, **named}


def pipelines() -> dict[str, dict[str, Any]]:
    """Return a pipeline for each task: digits.yaml with the grid's variants, and a harder task that
    is fine-tuned in the same way."""
    digits = yaml.safe_load((README.parent / "digits.yaml").read_text())
    shipped = digits.pop("variants")
    digits.pop("gates")
    channels, after = shipped["channels-sparse-int8"]["sparsify"]
    blocks = [shipped["sparse-int8-block"]["sparsify"], after]
    digits |= {"baseline": BASELINE, "release": "none"}
    # As many for each family: with 4, channels and 90 % zeros were still learning fast. Batches are
    # those of the training.
    fine_tune = {"epochs": 12, "learning_rate": 2.0e-3, "batch_size": None}
    return {
        "digits": digits | {"variants": variants(GRIDS["digits"], channels, blocks)},
        "two digits in clutter": digits
        | {
            "name": "two-digits",
            "data": {"ref": "two_digits.py:images"},
            "model": {"ref": "two_digits.py:network"},
            "train": {"epochs": 10, "batch_size": 64, "learning_rate": 3e-3, "schedule": "cosine"},
            "benchmark": digits["benchmark"] | {"test_samples": 2000},
            "variants": variants(
                GRIDS["two digits in clutter"],
                channels | fine_tune,
                [step | fine_tune for step in blocks],
            ),
        },
    }


def announce(event: events.RunEvent) -> None:
    if not isinstance(event, events.StageProgress):
        print(event, flush=True)


def rows(pipeline: dict[str, Any], seed: int, folder: Path, benchmark: bool) -> dict[str, Row]:
    """Train the grid with one seed, and return its rows by variant."""
    path = folder / f"{pipeline['name']}-{seed}.yaml"
    seeded = pipeline | {"train": pipeline["train"] | {"seed": seed}}
    path.write_text(yaml.safe_dump(seeded, sort_keys=False))
    device = folder / "local.yaml"
    device.write_text(yaml.safe_dump(DEVICE))
    with edgesparse.Project(ROOT, listener=announce) as project:
        results = project.deploy(path, devices=[device], benchmark=benchmark)
    if errors := [f"{row.variant}: {row.error}" for row in results.rows if row.error]:
        raise RuntimeError("; ".join(errors))
    return {row.variant: row for row in results.rows}


def study(task: str, seeds: list[int]) -> list[Point]:
    """Return a task's networks, the slowest first."""
    accuracies, speedups = defaultdict(list), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(Path(__file__).with_name("two_digits.py"), folder)
        for seed in seeds:
            first = seed == seeds[0]
            for variant, row in rows(pipelines()[task], seed, folder, benchmark=first).items():
                assert row.score is not None
                assert row.score.shown is not None
                accuracies[variant].append(row.score.shown)
                if first and row.speedup:
                    speedups[variant] = row.speedup
    settings = {"dense": [()], **GRIDS[task]}
    points = []
    for family, chosen in settings.items():
        for setting in chosen:
            variant = BASELINE if family == "dense" else name_of(family, setting)
            same = Speedup(ratio=1, ci95=(1, 1), baseline=BASELINE)
            speedup = same if family == "dense" else speedups[variant]
            points.append(Point(task, family, setting, tuple(accuracies[variant]), speedup))
    return sorted(points, key=lambda point: point.speedup.ratio)


def comparison(points: list[Point]) -> str:
    """Say for each task how the most accurate network with zeros compares with the fastest with
    fewer channels, among those that are at least as fast."""
    lines = []
    for task in dict.fromkeys(point.task for point in points):
        here = [point for point in points if point.task == task]
        fewer = max((p for p in here if p.family == "channels"), key=lambda p: p.speedup.ratio)
        faster = [
            p
            for p in here
            if p.family in ("blocks", "both") and p.speedup.ratio >= fewer.speedup.ratio
        ]
        if not faster:
            continue
        best = max(faster, key=lambda p: p.accuracy)
        points_more = 100 * (best.accuracy - fewer.accuracy)
        ratio = best.speedup.ratio / fewer.speedup.ratio
        lines.append(
            f"- {task}: {best.label} is {ratio:.2f}x as fast as {fewer.label}, at "
            f"{points_more:+.1f} points of accuracy."
        )
    return "\n".join(lines)


def table(points: list[Point]) -> str:
    """Return the points as a Markdown table."""
    lines = [
        "| task | int8 network | speed-up | accuracy % | of each seed |",
        "|---|---|---|---|---|",
    ]
    for point in points:
        margin = "" if point.margin is None else f"±{100 * point.margin:.1f}"
        seeds = ", ".join(f"{100 * accuracy:.1f}" for accuracy in point.accuracies)
        lines.append(
            f"| {point.task} | {point.label} | {point.speedup.ratio:.2f}x "
            f"| {100 * point.accuracy:.1f}{margin} | {seeds} |"
        )
    return "\n".join(lines)


def with_table(page: str, text: str) -> str:
    """Return the page with this text in its place: between its marks, or else before its shipped
    pipelines, in a section of its own."""
    written = f"{HEAD}\n{text}\n{END}"
    if HEAD not in page:
        return page.replace(BEFORE, f"{INTRODUCTION}\n{written}\n\n{BEFORE}", 1)
    pattern = f"{re.escape(HEAD)}.*?{re.escape(END)}"
    return re.sub(pattern, lambda _: written, page, flags=re.S)


def plot(points: list[Point], path: Path) -> None:
    """Draw accuracy over speed-up, a panel for each task."""
    tasks = list(dict.fromkeys(point.task for point in points))
    with mpl.rc_context({"svg.hashsalt": "edgesparse", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.5 * len(tasks), 3.4), layout="constrained")
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            for (family, label), marker in zip(LABELS.items(), "D^so", strict=True):
                chosen = [p for p in points if p.task == task and p.family == family]
                axes.errorbar(
                    [p.speedup.ratio for p in chosen],
                    [100 * p.accuracy for p in chosen],
                    [100 * (p.margin or 0) for p in chosen],
                    marker=marker,
                    capsize=2,
                    label=label,
                )
            axes.set(title=task, xlabel="speed-up over dense int8", ylabel="accuracy %")
            axes.grid(alpha=0.3)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 1, 2])
    parser.add_argument("--only", choices=GRIDS, help="print this task alone, and write nothing")
    options = parser.parse_args()
    tasks = [options.only] if options.only else list(GRIDS)
    points = [point for task in tasks for point in study(task, options.seeds)]
    text = f"{table(points)}\n\n{comparison(points)}"
    print(text)
    if options.only is None:
        README.write_text(with_table(README.read_text(), text))
        plot(points, PLOT)


if __name__ == "__main__":
    main()
