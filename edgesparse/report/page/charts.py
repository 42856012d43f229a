"""The charts of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from edgesparse.measure.comparison import place_of
from edgesparse.measure.provenance import InputAttribution, LayerSensitivity, Training
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row, Score
from edgesparse.measure.trials import Sweep, Trial
from edgesparse.report.page.drawing import Drawing, colour, drawn, legend, marker
from edgesparse.report.table import metric_text, ms_text, size_text
from edgesparse.report.trials import plain_text, trial_lines, unit_of

_WIDE = 8.0
"""From this ratio on an axis is logarithmic."""
_LAYERS = 16


def trade_off(title: str, rows: Sequence[Row], places: Mapping[str, int]) -> Markup | None:
    """The metric against latency, with intervals and the Pareto front."""
    points = [row for row in rows if row.latency_ms and row.score and row.score.shown is not None]
    if len(points) < 2:
        return None
    score = _score(points[0])
    unit = "ms of instructions" if points[0].clock == "instructions" else "ms"

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for row in points:
            assert row.latency_ms is not None
            own, value = _score(row), _percent(row)
            low, high = own.ci95 or (own.shown or 0.0, own.shown or 0.0)
            scale = _scale(own)
            p50, (left, right) = row.latency_ms.p50, row.latency_ms.ci95
            place = places[row.variant]
            line = axes.errorbar(
                [p50],
                [value],
                xerr=[[max(0.0, p50 - left)], [max(0.0, right - p50)]],
                yerr=[[max(0.0, value - low * scale)], [max(0.0, high * scale - value)]],
                fmt=marker(place),
                color=colour(place),
                capsize=2,
                elinewidth=0.9,
                label=row.variant,
            )
            text = f"{row.variant}: {ms_text(p50)} {unit}, {_told(own)}"
            drawing.name(line.lines[0], text)
        front = _front(points, score.sign)
        axes.step(
            [row.latency_ms.p50 for row in front if row.latency_ms],
            [_percent(row) for row in front],
            where="post",
            color="#020202",
            linewidth=1.0,
            linestyle="--",
            zorder=0,
        )
        _axis(axes, "x", [row.latency_ms.p50 for row in points if row.latency_ms], ms_text)
        axes.set_xlabel(f"p50 [{unit}]")
        axes.set_ylabel(_named(score))
        legend(axes, len(points))

    label = f"{_named(score)} against latency, {title}: the values are in the table"
    return drawn(label, draw)


def sizes(title: str, rows: Sequence[Row], places: Mapping[str, int]) -> Markup | None:
    """The metric against the file's size."""
    points = [row for row in rows if row.model and row.score and row.score.shown is not None]
    if len(points) < 2:
        return None
    score = _score(points[0])

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for row in points:
            assert row.model is not None
            place = places[row.variant]
            (line,) = axes.plot(
                [row.model.bytes],
                [_percent(row)],
                marker(place),
                color=colour(place),
                label=row.variant,
            )
            text = f"{row.variant}: {size_text(row.model.bytes)}, {_told(_score(row))}"
            drawing.name(line, text)
        values = [float(row.model.bytes) for row in points if row.model]
        _axis(axes, "x", values, lambda value: size_text(max(0, int(value))))
        axes.set_xlabel("file")
        axes.set_ylabel(_named(score))
        legend(axes, len(points))

    return drawn(f"{_named(score)} against size, {title}: the values are in the table", draw)


def by_round(title: str, rows: Sequence[Row], places: Mapping[str, int]) -> Markup | None:
    """The median of each round, relative to the first: drift and throttling."""
    known = [row for row in rows if row.latency_ms and len(row.latency_ms.by_round) > 1]
    if not known:
        return None

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for row in known:
            assert row.latency_ms is not None
            found = row.latency_ms.by_round
            place = places[row.variant]
            (line,) = axes.plot(
                range(1, len(found) + 1),
                [100 * value / found[0] for value in found],
                marker=marker(place),
                color=colour(place),
                label=row.variant,
            )
            told = ", ".join(map(ms_text, found))
            drawing.name(line, f"{row.variant}: {told} ms")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("round")
        axes.set_ylabel("median [% of the first round's]")
        legend(axes, len(known))

    return drawn(f"latency by round, {title}", draw)


def learning(training: Training) -> Markup:
    """The loss and each metric by epoch."""
    metrics = [name for name in training.history if not name.startswith("val_") and name != "loss"]
    metrics += [
        name.removeprefix("val_")
        for name in training.history
        if name.startswith("val_") and name.removeprefix("val_") not in (*metrics, "loss")
    ]
    shown = ["loss", *metrics[:1]]

    def draw(drawing: Drawing) -> None:
        for axes, name in zip(drawing.axes(len(shown)), shown, strict=True):
            for place, (key, text) in enumerate(
                ((name, "training"), (f"val_{name}", "validation"))
            ):
                values = training.history.get(key)
                if values:
                    given = [math.nan if value is None else value for value in values]
                    axes.plot(range(1, len(given) + 1), given, **_line(place, given), label=text)
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.legend(fontsize=8)

    return drawn(f"{training.label}: {' and '.join(shown)} by epoch", draw, 6.4, 2.6)


def sensitivity(found: LayerSensitivity) -> Markup:
    """What is left of the metric with one layer pruned alone, untrained."""
    scale = 100 if found.unit == "%" else 1
    chosen = list(found.layers.items())[:_LAYERS]

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for place, (name, values) in enumerate(chosen):
            (line,) = axes.plot(
                [100 * level for level in found.levels],
                [scale * value for value in values],
                marker=marker(place),
                color=colour(place),
                label=name,
            )
            drawing.name(line, name)
        axes.axhline(scale * found.dense, color="#020202", linewidth=0.9, linestyle="--")
        axes.set_xlabel("zeros in this layer alone [%]")
        axes.set_ylabel(f"{found.metric} [{found.unit}]" if found.unit else found.metric)
        legend(axes, len(chosen))

    return drawn("the metric on validation data with one layer pruned alone", draw)


def attribution(found: InputAttribution) -> Markup:
    """Which pixels speak for each output, and which against it."""
    height, width = found.shape[:2]
    rows = math.ceil(len(found.attribution) / 6)

    def draw(drawing: Drawing) -> None:
        grid = drawing.figure.subplots(rows, min(6, len(found.attribution)), squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (label, values) in zip(grid.flat, found.attribution.items(), strict=False):
            picture = [values[row * width : (row + 1) * width] for row in range(height)]
            axes.imshow(picture, cmap="RdBu_r", vmin=-99, vmax=99, interpolation="nearest")
            axes.set_title(label)

    return drawn(
        "for each output the pixels that speak for it and against it", draw, 6.4, 1.3 * rows
    )


def over_runs(place: str, runs: Sequence[Results]) -> Markup | None:
    """The median latency of each variant over the runs of a pipeline, relative to its first."""
    found: dict[str, list[float]] = {}
    for number, run in enumerate(runs):
        for row in run.rows:
            if place_of(row) == place and row.status == "ok" and row.latency_ms:
                values = found.setdefault(row.variant, [math.nan] * len(runs))
                values[number] = row.latency_ms.p50
    if not found or len(runs) < 2:
        return None

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for number, (variant, values) in enumerate(found.items()):
            first = next(value for value in values if not math.isnan(value))
            (line,) = axes.plot(
                range(1, len(values) + 1),
                [100 * value / first for value in values],
                marker=marker(number),
                color=colour(number),
                label=variant,
            )
            drawing.name(line, variant)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("run")
        axes.set_ylabel("p50 [% of the first run's]")
        legend(axes, len(found))

    return drawn(f"latency over runs, {place}", draw)


def front(found: Sweep) -> list[tuple[str, str, Markup]]:
    """Each objective against the first: every trial, and the front among them."""
    shown = [trial for trial in found.trials if trial.values]
    best = {trial.name for trial in found.front}
    kinds = (
        ("trials", 0, [t for t in shown if t.number is not None and t.name not in best]),
        ("in the pipeline", 1, [t for t in shown if t.number is None and t.name not in best]),
        ("front", 2, [t for t in shown if t.name in best]),
    )
    charts = []
    for place in range(1, len(found.objectives)):
        first, second = found.objectives[0], found.objectives[place]

        def draw(drawing: Drawing, place: int = place) -> None:
            (axes,) = drawing.axes(1)
            for name, number, own in kinds:
                for trial in own:
                    (line,) = axes.plot(
                        [trial.values[place]],
                        [trial.values[0]],
                        marker(number),
                        color=colour(number),
                        label=name if trial is own[0] else None,
                    )
                    texts = trial_lines(found, trial)
                    drawing.name(line, ", ".join(texts))
            for which, objective, values in (
                ("x", found.objectives[place], [t.values[place] for t in shown]),
                ("y", found.objectives[0], [t.values[0] for t in shown]),
            ):
                _axis(axes, which, values, partial(plain_text, objective, trial=shown[0]))
            axes.set_xlabel(_with_unit(found.objectives[place], shown[0]))
            axes.set_ylabel(_with_unit(found.objectives[0], shown[0]))
            axes.legend(fontsize=8)

        if shown:
            charts.append((first, second, drawn(f"{first} against {second}", draw)))
    return charts


def _with_unit(objective: str, trial: Trial) -> str:
    unit = unit_of(objective, trial)
    return f"{objective.removesuffix('_ms')} [{unit}]" if unit else objective


def _line(place: int, values: Sequence[float]) -> dict[str, Any]:
    """One value alone makes no line."""
    return {"color": colour(place), "marker": "o" if len(values) == 1 else ""}


def _axis(axes: Axes, which: str, values: Sequence[float], text: object) -> None:
    positive = [value for value in values if value > 0]
    axis = axes.xaxis if which == "x" else axes.yaxis
    assert callable(text)
    if positive and len(positive) == len(values) and max(positive) > _WIDE * min(positive):
        axes.set_xscale("log")
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value) if value > 0 else "0"))


def _front(rows: Sequence[Row], sign: int) -> list[Row]:
    """Those that no other one beats in both, the fastest first."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda r: r.latency_ms.p50 if r.latency_ms else 0.0):
        if not found or sign * _percent(row) > sign * _percent(found[-1]):
            found.append(row)
    return found


def _score(row: Row) -> Score:
    assert row.score is not None
    return row.score


def _scale(score: Score) -> float:
    return 100.0 if score.unit == "%" else 1.0


def _percent(row: Row) -> float:
    score = _score(row)
    return (score.shown or 0.0) * _scale(score)


def _named(score: Score) -> str:
    return f"{score.name} [{score.unit}]" if score.unit else score.name


def _told(score: Score) -> str:
    unit = f" {score.unit}" if score.unit else ""
    return f"{score.name} {metric_text(score.shown or 0.0, score.unit)}{unit}"
