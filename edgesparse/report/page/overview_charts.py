"""The charts at the top of a page: every variant on every device and runtime in one picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row, Score
from edgesparse.report.page.drawing import (
    Drawing,
    color,
    legend,
    marker,
    plotted,
    render_svg,
    scale_axis,
    series_indices,
    series_label,
)
from edgesparse.report.table import placement_label
from edgesparse.report.units import metric_text, ms_text, size_text, time_unit

MAX_POINTS = 400
"""Largest number of rows with charts."""
MAX_NAMES = 40
"""Largest number of variants that a chart names at its axis."""
_LETTER = 0.082
"""Width of a letter at the axis, in inches."""
_MARGINS = (0.3, 0.1)
"""Below and above the axes, in inches."""


def overview_charts(
    results: Results, shipped: Mapping[str, Row | None]
) -> list[tuple[str, Markup]]:
    """Draw latency, and metric against latency and against size, of all rows; charts by caption.
    Instruction counts have charts of their own: they are not time.

    Args:
        shipped: by device the row to ship.
    """
    result: list[tuple[str, Markup | None]] = []
    rows = [row for row in results.rows if row.status == "ok"]
    if len(rows) > MAX_POINTS:
        return []
    placements = series_indices(placement_label(row, results) for row in rows)
    ship = [row for row in shipped.values() if row is not None]
    for clock in dict.fromkeys(row.clock for row in rows):
        timed = [row for row in rows if row.clock == clock and row.latency_ms]
        unit = "ms" if clock == "wall" else "ms, simulated: instruction count"
        if len(timed) < 2:
            continue
        if len({row.variant for row in timed}) <= MAX_NAMES:
            result.append(
                (f"latency by variant [{unit}]", _latency(timed, results, placements, ship))
            )
        scored = [row for row in timed if row.score and row.score.shown is not None]
        result.append(
            (f"{_name(scored)} against latency [{unit}]", _scatter(scored, results, placements))
        )
    scored = [row for row in rows if row.model and row.score and row.score.shown is not None]
    result.append(
        (f"{_name(scored)} against file size", _scatter(scored, results, placements, by_size=True))
    )
    return [(caption, chart) for caption, chart in result if chart is not None]


def _name(rows: Sequence[Row]) -> str:
    score = next((row.score for row in rows if row.score), None)
    if score is None:
        return "metric"
    return f"{score.name} [{score.unit}]" if score.unit else score.name


def _latency(
    rows: Sequence[Row], results: Results, placements: Mapping[str, int], ship: Sequence[Row]
) -> Markup:
    """Plot p50 with its interval, a line for each variant and a mark for each placement."""
    variants = series_indices(row.variant for row in rows)
    here = {name: k for name, k in placements.items() if name in _labels(rows, results)}

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for number, (name, index) in enumerate(here.items()):
            # Beside one another, so that none hides another.
            step = min(0.22, 0.6 / len(here))
            offset = step * (number - (len(here) - 1) / 2)
            group = [row for row in rows if placement_label(row, results) == name]
            for row in group:
                assert row.latency_ms is not None
                p50, (low, high) = row.latency_ms.p50, row.latency_ms.ci95
                is_shipped = any(row is other for other in ship)
                line = axes.errorbar(
                    [p50],
                    [variants[row.variant] + offset],
                    xerr=[[max(0.0, p50 - low)], [max(0.0, high - p50)]],
                    fmt=marker(index),
                    color=color(index),
                    markersize=9 if is_shipped else 6,
                    markeredgecolor="#010101" if is_shipped else color(index),
                    label=series_label(name) if row is group[0] else None,
                )
                word = "; ship this" if is_shipped else ""
                text = f"{ms_text(p50)} {time_unit(row.clock)}{word}"
                drawing.add_tooltip(line.lines[0], f"{row.variant}, {name}: {text}")
        axes.set_yticks(range(len(variants)), list(variants))
        axes.set_ylim(len(variants) - 0.5, -0.5)
        scale_axis(axes, "x", [row.latency_ms.p50 for row in rows if row.latency_ms], _ms_tick)
        legend(axes, len(here))

    left = min(0.2 + _LETTER * max(map(len, variants)), 2.4)
    height = max(1.8, 0.5 + (0.2 + 0.07 * len(here)) * len(variants))
    label = "p50 latency of every variant on every device and runtime; the values are in the tables"
    return render_svg(label, draw, height=height, margins=(left, *_MARGINS))


def _labels(rows: Sequence[Row], results: Results) -> set[str]:
    return {placement_label(row, results) for row in rows}


def _scatter(
    rows: Sequence[Row], results: Results, placements: Mapping[str, int], *, by_size: bool = False
) -> Markup | None:
    """Plot the metric against latency, or against size: a colour for each variant, a mark for each
    placement, and a line along each placement's Pareto front."""
    if len(rows) < 2:
        return None
    variants = series_indices(row.variant for row in results.rows)
    draw = partial(_draw_scatter, rows, results, placements, variants, by_size)
    against = "file size" if by_size else "latency"
    label = f"{_name(rows)} against {against}; the values are in the tables"
    return render_svg(label, draw, margins=(0.62, *_MARGINS))


def _draw_scatter(
    rows: Sequence[Row],
    results: Results,
    placements: Mapping[str, int],
    variants: Mapping[str, int],
    by_size: bool,
    drawing: Drawing,
) -> None:
    (axes,) = drawing.axes(1)
    labels = [name for name in placements if name in _labels(rows, results)]
    for name in labels:
        group = [row for row in rows if placement_label(row, results) == name]
        if not by_size:
            _draw_front(axes, group)
        for row in group:
            index = variants[row.variant]
            shown = marker(placements[name])
            (line,) = axes.plot([_x(row, by_size)], [_y(row)], shown, color=color(index))
            low, high = _limits(row)
            axes.vlines(_x(row, by_size), low, high, color=color(index), linewidth=0.8, alpha=0.5)
            if by_size:  # A row of `run` has no latency.
                text = size_text(int(_x(row, True)))
            else:
                text = f"{ms_text(_x(row, False))} {time_unit(row.clock)}"
            drawing.add_tooltip(line, f"{row.variant}, {name}: {text}, {_score_text(row)}")
    scale_axis(axes, "x", [_x(row, by_size) for row in rows], _size_tick if by_size else _ms_tick)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    count = 0
    for row_name, index in variants.items():
        if any(row.variant == row_name for row in rows):
            axes.plot([], [], "s", color=color(index), label=series_label(row_name))
            count += 1
    for name in labels if len(labels) > 1 else ():
        axes.plot([], [], marker(placements[name]), color="#020202", label=series_label(name))
        count += 1
    legend(axes, count)


def _draw_front(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a line along the rows that no other row beats in latency and metric."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: _x(row, False)):
        assert row.score is not None
        if not best or row.score.sign * _y(row) > row.score.sign * _y(best[-1]):
            best.append(row)
    points = [_x(row, False) for row in best], [_y(row) for row in best]
    axes.step(*points, where="post", color="#020202", linewidth=0.9, linestyle="--", zorder=0)


def _x(row: Row, by_size: bool) -> float:
    if by_size:
        assert row.model is not None
        return float(row.model.bytes)
    assert row.latency_ms is not None
    return row.latency_ms.p50


def _y(row: Row) -> float:
    """A row's metric as it is plotted."""
    assert row.score is not None
    return plotted(row.score, row.score.shown)


def _limits(row: Row) -> tuple[float, float]:
    """The metric's interval, as it is plotted."""
    score = row.score
    assert score is not None
    low, high = score.ci95 or (score.shown, score.shown)
    return plotted(score, low), plotted(score, high)


def _score_text(row: Row) -> str:
    score: Score | None = row.score
    assert score is not None
    return f"{score.name} {metric_text(score.shown or 0.0, score.unit)} {score.unit}".strip()


def _ms_tick(value: float) -> str:
    return f"{value:.4g}"


def _size_tick(value: float) -> str:
    """A size without decimals that are zeros."""
    return re.sub(r"\.0+(?= )", "", size_text(max(0, round(value))))
