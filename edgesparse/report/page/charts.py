"""Charts of a run: latency by round, learning curves, sensitivities, attribution, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from edgesparse.measure.rows import Row
from edgesparse.measure.training_details import InputAttribution, LayerSensitivity, Training
from edgesparse.measure.trials import SearchResult, Trial
from edgesparse.report.page.drawing import (
    Drawing,
    color,
    legend,
    marker,
    render_svg,
    scale_axis,
    series_label,
)
from edgesparse.report.trials import trial_texts, unit_of, value_text
from edgesparse.report.units import ms_text, time_unit

MAX_LAYERS = 16
ATTRIBUTION_COLUMNS = 6


def latency_by_round(title: str, rows: Sequence[Row], indices: Mapping[str, int]) -> Markup | None:
    """Plot the median of each round relative to the first: shows drift and throttling."""
    measured = [row for row in rows if row.latency_ms and len(row.latency_ms.by_round) > 1]
    if not measured:
        return None

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for row in measured:
            assert row.latency_ms is not None
            medians = row.latency_ms.by_round
            index = indices[row.variant]
            (line,) = axes.plot(
                range(1, len(medians) + 1),
                [100 * value / medians[0] for value in medians],
                marker=marker(index),
                color=color(index),
                label=series_label(row.variant),
            )
            texts = ", ".join(map(ms_text, medians))
            drawing.add_tooltip(line, f"{row.variant}: {texts} {time_unit(row.clock)}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("round")
        legend(axes, len(measured))

    return render_svg(f"latency by round, {title}", draw)


def learning_curves(training: Training) -> Markup:
    """Plot the loss and the first metric by epoch."""
    metrics = [name for name in training.history if not name.startswith("val_") and name != "loss"]
    metrics += [
        name.removeprefix("val_")
        for name in training.history
        if name.startswith("val_") and name.removeprefix("val_") not in (*metrics, "loss")
    ]
    shown = ["loss", *metrics[:1]]

    def draw(drawing: Drawing) -> None:
        for axes, name in zip(drawing.axes(len(shown)), shown, strict=True):
            for index, (key, text) in enumerate(
                ((name, "training"), (f"val_{name}", "validation"))
            ):
                values = training.history.get(key)
                if values:
                    points = [math.nan if value is None else value for value in values]
                    axes.plot(
                        range(1, len(points) + 1), points, **_line_style(index, points), label=text
                    )
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.legend(fontsize=10)

    return render_svg(f"{training.label}: {' and '.join(shown)} by epoch", draw, height=2.6)


def sensitivity_curves(curves: LayerSensitivity) -> Markup:
    """Plot the metric with one layer pruned alone, without training."""
    scale = 100 if curves.unit == "%" else 1
    layers = list(curves.layers.items())[:MAX_LAYERS]

    def draw(drawing: Drawing) -> None:
        (axes,) = drawing.axes(1)
        for index, (name, values) in enumerate(layers):
            (line,) = axes.plot(
                [100 * level for level in curves.levels],
                [scale * value for value in values],
                marker=marker(index),
                color=color(index),
                label=series_label(name),
            )
            drawing.add_tooltip(line, name)
        axes.axhline(scale * curves.dense, color="#020202", linewidth=0.9, linestyle="--")
        axes.set_xlabel("sparsity of this layer alone [%]")
        axes.set_ylabel(f"{curves.metric} [{curves.unit}]" if curves.unit else curves.metric)
        legend(axes, len(layers))

    return render_svg("the metric on validation data with one layer pruned alone", draw)


def attribution_maps(inputs: InputAttribution) -> Markup:
    """Show the weight of each pixel for (red) and against (blue) each output."""
    height, width = inputs.shape[:2]
    columns = min(ATTRIBUTION_COLUMNS, len(inputs.attribution))
    rows = math.ceil(len(inputs.attribution) / ATTRIBUTION_COLUMNS)

    def draw(drawing: Drawing) -> None:
        grid = drawing.figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (label, values) in zip(grid.flat, inputs.attribution.items(), strict=False):
            picture = [values[row * width : (row + 1) * width] for row in range(height)]
            axes.imshow(picture, cmap="RdBu_r", vmin=-99, vmax=99, interpolation="nearest")
            axes.set_title(label)

    return render_svg("weight of each pixel for and against each output", draw, 6.4, 1.3 * rows)


def front(search: SearchResult) -> list[tuple[str, Markup]]:
    """Plot the first objective against each of the others: every trial, the front highlighted."""
    trials = [trial for trial in search.trials if trial.values]
    if not trials:
        return []
    return [
        (
            f"{search.objectives[0]} and {objective}",
            render_svg(
                f"{search.objectives[0]} against {objective}",
                partial(_draw_front, search=search, trials=trials, second=index),
            ),
        )
        for index, objective in enumerate(search.objectives[1:], start=1)
    ]


def _draw_front(
    drawing: Drawing, search: SearchResult, trials: Sequence[Trial], second: int
) -> None:
    """Draw the first objective (y) against the one with index `second` (x)."""
    best = {trial.name for trial in search.front}
    groups = {
        "trials": [t for t in trials if t.number is not None and t.name not in best],
        "variants of the pipeline": [t for t in trials if t.number is None and t.name not in best],
        "front": [t for t in trials if t.name in best],
    }
    (axes,) = drawing.axes(1)
    for index, (name, members) in enumerate(groups.items()):
        for trial in members:
            (line,) = axes.plot(
                [trial.values[second]],
                [trial.values[0]],
                marker(index),
                color=color(index),
                label=name if trial is members[0] else None,
            )
            drawing.add_tooltip(line, ", ".join(trial_texts(search, trial)))
    for which, objective_index in (("x", second), ("y", 0)):
        objective = search.objectives[objective_index]
        values = [trial.values[objective_index] for trial in trials]
        scale_axis(axes, which, values, partial(value_text, objective, trial=trials[0]))
    axes.set_xlabel(_with_unit(search.objectives[second], trials[0]))
    axes.set_ylabel(_with_unit(search.objectives[0], trials[0]))
    axes.legend(fontsize=10)


def _with_unit(objective: str, trial: Trial) -> str:
    unit = unit_of(objective, trial)
    return f"{objective.removesuffix('_ms')} [{unit}]" if unit else objective


def _line_style(index: int, values: Sequence[float]) -> dict[str, Any]:
    """Style of a line; a single value gets a marker, since it makes no line."""
    return {"color": color(index), "marker": "o" if len(values) == 1 else ""}
