"""Charts of changes: between two runs, and over the runs of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from edgesparse.measure.comparison import Change, keyed_rows
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.report.comparison import verdict
from edgesparse.report.page.drawing import (
    Drawing,
    color,
    legend,
    marker,
    plotted,
    render_svg,
    series_label,
)
from edgesparse.report.units import metric_text, ms_text, ratio_text, time_unit

MAX_CHANGES = 40
"""Largest number of rows in a chart of changes."""
MAX_DATED = 5
"""Largest number of runs whose dates stand at the axis."""
_LETTER = 0.082
_STYLES = {"red": 1, "bold red": 1, "green": 2}
"""Series colour of a verdict's style; others are grey."""


def change_charts(placement: str, changes: Sequence[Change]) -> list[tuple[str, Markup]]:
    """Draw the slowdowns of a placement's rows with their intervals, and their metrics before and
    after; charts by caption."""
    result = []
    timed = [change for change in changes if change.slowdown is not None]
    if timed and len(timed) <= MAX_CHANGES:
        chart = _by_variant(f"slowdown, {placement}", timed, _draw_slowdowns)
        result.append((f"{placement}: p50 after / before (1 is unchanged)", chart))
    scored = [change for change in changes if change.drop is not None]
    if scored and len(scored) <= MAX_CHANGES:
        score = scored[0].after.score
        assert score is not None
        name = f"{score.name} [{score.unit}]" if score.unit else score.name
        chart = _by_variant(f"{name}, {placement}", scored, _draw_metrics)
        result.append((f"{placement}: {name}, from before (ring) to after", chart))
    return result


def _by_variant(
    label: str, changes: Sequence[Change], draw: Callable[[Axes, Drawing, Sequence[Change]], None]
) -> Markup:
    """Draw a line for each variant."""
    names = [change.variant for change in changes]

    def draw_lines(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        draw(axes, drawing, changes)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)

    left = min(0.2 + _LETTER * max(map(len, names)), 2.4)
    height = max(1.2, 0.5 + 0.26 * len(names))
    return render_svg(
        f"{label}: the values are in the table", draw_lines, height=height, margins=(left, 0.3, 0.1)
    )


def _color(change: Change) -> str:
    style = _STYLES.get(verdict(change)[1])
    return "#020202" if style is None else color(style)


def _draw_slowdowns(axes: Axes, drawing: Drawing, changes: Sequence[Change]) -> None:
    axes.axvline(1.0, color="#020202", linewidth=0.9, linestyle="--")
    for index, change in enumerate(changes):
        ratio = change.slowdown or 1.0
        low, high = change.slowdown_ci95 or (ratio, ratio)
        line = axes.errorbar(
            [ratio],
            [index],
            xerr=[[max(0.0, ratio - low)], [max(0.0, high - ratio)]],
            fmt="o",
            color=_color(change),
            capsize=2,
        )
        text = f"{change.variant}: {ratio_text(ratio)}x, {verdict(change)[0]}"
        drawing.add_tooltip(line.lines[0], text)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}x"))


def _draw_metrics(axes: Axes, drawing: Drawing, changes: Sequence[Change]) -> None:
    for index, change in enumerate(changes):
        before, after = (_metric(row) for row in (change.before, change.after))
        axes.plot([before, after], [index, index], "-", color=_color(change))
        axes.plot([before], [index], "o", color=_color(change), fillstyle="none")
        (line,) = axes.plot([after], [index], "o", color=_color(change))
        score = change.after.score
        assert score is not None
        scores = [row.score for row in (change.before, change.after) if row.score]
        texts = [metric_text(other.shown or 0.0, score.unit) for other in scores]
        drawing.add_tooltip(line, f"{change.variant}: {' -> '.join(texts)} {score.unit}".strip())
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _metric(row: Row) -> float:
    """A row's metric as it is plotted."""
    return plotted(row.score, row.score.shown) if row.score else 0.0


def history_charts(placement: str, runs: Sequence[Results]) -> list[tuple[str, Markup]]:
    """Draw latency, relative to the first, and metric of each variant over a pipeline's runs."""
    if len(runs) < 2:
        return []
    rows: dict[str, dict[int, Row]] = {}
    for number, keyed in enumerate(keyed_rows(*runs), start=1):
        for (shown_in, variant), row in keyed.items():
            if shown_in == placement and row.status == "ok":
                rows.setdefault(variant, {})[number] = row
    times = {
        variant: {n: row.latency_ms.p50 for n, row in by_run.items() if row.latency_ms}
        for variant, by_run in rows.items()
    }
    shown = {
        variant: {n: 100 * value / values[min(values)] for n, value in values.items()}
        for variant, values in times.items()
        if values and min(values.values()) > 0
    }
    title, metrics = _latest_metric(rows)
    result = []
    if shown:
        texts = {
            variant: f"{', '.join(map(ms_text, values.values()))} {_unit(rows[variant])}"
            for variant, values in times.items()
        }
        chart = _over_runs(f"latency, {placement}", shown, texts, runs)
        result.append((f"{placement}: p50 [% of the first run]", chart))
    if metrics:
        texts = {v: ", ".join(f"{m:.4g}" for m in values.values()) for v, values in metrics.items()}
        chart = _over_runs(f"{title}, {placement}", metrics, texts, runs)
        result.append((f"{placement}: {title}", chart))
    return result


def _unit(rows: Mapping[int, Row]) -> str:
    return next(time_unit(row.clock) for row in rows.values())


def _latest_metric(
    rows: Mapping[str, Mapping[int, Row]],
) -> tuple[str, dict[str, dict[int, float]]]:
    """Return the name of the latest run's metric, and its values by variant and number of the run;
    runs with another metric have none."""
    scored = {
        variant: {n: s for n, row in by_run.items() if (s := row.score) and s.shown is not None}
        for variant, by_run in rows.items()
    }
    numbered = [(n, score) for by_run in scored.values() for n, score in by_run.items()]
    if not numbered:
        return "", {}
    _, latest = max(numbered, key=lambda entry: entry[0])
    alike = (latest.name, latest.unit)
    values = {
        variant: {n: plotted(s, s.shown) for n, s in by_run.items() if (s.name, s.unit) == alike}
        for variant, by_run in scored.items()
    }
    title = f"{latest.name} [{latest.unit}]" if latest.unit else latest.name
    return title, {variant: by_run for variant, by_run in values.items() if by_run}


def _over_runs(
    label: str,
    series: Mapping[str, Mapping[int, float]],
    texts: Mapping[str, str],
    runs: Sequence[Results],
) -> Markup:
    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for index, (variant, values) in enumerate(series.items()):
            numbers = range(1, len(runs) + 1)
            points = [values.get(number, math.nan) for number in numbers]
            (line,) = axes.plot(
                numbers,
                points,
                marker=marker(index),
                color=color(index),
                label=series_label(variant),
            )
            drawing.add_tooltip(line, f"{variant}: {texts[variant]}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(runs) <= MAX_DATED:
            dates = [f"{number}: {run.started[5:10]}" for number, run in enumerate(runs, start=1)]
            axes.set_xticks(range(1, len(runs) + 1), dates)
        legend(axes, len(series))

    return render_svg(f"{label}, over runs", draw, margins=(0.62, 0.3, 0.1))
