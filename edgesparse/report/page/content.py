"""The content of a run's page, as plain values for its template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.measure.training_details import LayerSparsity, Provenance
from edgesparse.report.page import charts
from edgesparse.report.page.drawing import series_indices
from edgesparse.report.page.model_view import REPORTED_DIFFERENCE, Bar, model_views
from edgesparse.report.page.overview_charts import MAX_POINTS, overview_charts
from edgesparse.report.table import (
    BEST_LEGEND,
    Block,
    Cell,
    block_cells,
    blocks,
    number_notes,
)
from edgesparse.report.table_notes import (
    QUICK,
    device_lines,
    gate_line,
    legend,
    predicted_rows,
    release_line,
    seed_lines,
    unstable_lines,
)
from edgesparse.report.units import metric_text, percent_text
from edgesparse.report.verdicts import ship_groups, verdicts

MAX_CLASSES = 24
"""Largest number of classes with a readable confusion matrix."""


@dataclass(frozen=True)
class BlockView:
    """A block of the table with its charts, by caption."""

    anchor: str
    title: str
    columns: list[str]
    lines: list[list[Cell]]
    charts: list[tuple[str, Markup]]


def page_content(results: Results, max_training_charts: int) -> dict[str, Any]:
    """Collect everything that the template needs."""
    provenance = results.provenance
    note_numbers = number_notes(results.rows)
    tables = blocks(results)
    shipped = {block.rows[0].device: block.shipped for block in tables}
    indices = series_indices(row.variant for row in results.rows)
    return {
        "results": results,
        "quick": QUICK,
        "devices": device_lines(results),
        "blocks": [
            _block_view(f"block{number}", block, note_numbers, indices)
            for number, block in enumerate(tables)
        ],
        "charts": overview_charts(results, shipped),
        "legend": f"*: {BEST_LEGEND}; {legend(results)}",
        "note_numbers": note_numbers,
        "notes": [*unstable_lines(results), *results.notes, *results.advice],
        "verdicts": verdicts(results),
        "predictions": list(predicted_rows(results)),
        "seeds": list(seed_lines(results)),
        "recommendations": ship_groups(results),
        "started": f"{results.started[:16].replace('T', ' ')} UTC",
        "gates": [(gate_line(gate), gate.passed) for gate in results.gates],
        "releases": list(map(release_line, results.releases)),
        "trainings": [
            (training, charts.learning_curves(training))
            for training in provenance.trainings[:max_training_charts]
        ],
        "gaps": list(_gaps(results)),
        "layers": list(_layers(provenance.layers)),
        "layer_variants": list(provenance.layers),
        "coverages": list(_coverages(results)),
        "sensitivities": [
            (curves, charts.sensitivity_curves(curves)) for curves in provenance.sensitivities
        ],
        "models": model_views(results, shipped),
        "experts": list(_experts(results)),
        "activations": _activations(results),
        "inputs": list(_inputs(provenance)),
        "confusions": list(_confusions(results)),
    }


def _block_view(
    anchor: str, block: Block, note_numbers: dict[str, int], indices: Mapping[str, int]
) -> BlockView:
    rows = [row for row in block.rows if row.status == "ok"]
    drawings: dict[str, Markup | None] = {}
    if len(rows) <= MAX_POINTS:
        caption = "latency by round [% of the first]"
        drawings = {caption: charts.latency_by_round(block.title, rows, indices)}
    return BlockView(
        anchor,
        block.title,
        block.titles,
        block_cells(block, note_numbers),
        [(caption, chart) for caption, chart in drawings.items() if chart is not None],
    )


def _variant_rows(results: Results) -> Iterator[Row]:
    """Yield a row of each variant, for facts that do not depend on where it runs."""
    seen = set()
    for row in results.rows:
        if row.status == "ok" and row.variant not in seen:
            seen.add(row.variant)
            yield row


def _gaps(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield by variant the metric on training data and on test data, and the gap."""
    for row in _variant_rows(results):
        score = row.score
        if score is None or score.keras_train is None or score.keras is None:
            continue
        gap = score.sign * (score.keras_train - score.keras)
        texts = (metric_text(value, score.unit) for value in (score.keras_train, score.keras, gap))
        yield (row.variant, f"{score.name} {score.unit}".strip(), *texts)


def _layers(
    variants: Mapping[str, Sequence[LayerSparsity]],
) -> Iterator[tuple[str, str, list[Bar | None]]]:
    """Yield by layer its name, its size before pruning, and each variant's sparsity."""
    sizes: dict[str, int] = {}
    for layer in (layer for layers in variants.values() for layer in layers):
        sizes[layer.name] = max(sizes.get(layer.name, 0), layer.size_before or layer.size)
    for name, size in sizes.items():
        matches = (
            next((layer for layer in layers if layer.name == name), None)
            for layers in variants.values()
        )
        yield name, f"{size:,}", [_layer_bar(layer, size) if layer else None for layer in matches]


def _layer_bar(layer: LayerSparsity, size: int) -> Bar:
    pattern = "" if layer.pattern == "unstructured" else f" {layer.pattern}"
    text = f"{percent_text(layer.achieved)} %{pattern}"
    if abs(layer.target - layer.achieved) > REPORTED_DIFFERENCE and layer.target:
        text += f", target {layer.target:.0%}"
    if layer.size != size:
        text += f", {layer.size:,} weights left"
    return Bar(text, layer.achieved, layer.target or None)


def _coverages(results: Results) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Yield by variant its target and achieved sparsity, and the layers left dense with their share
    of the weights and the reason."""
    for row in _variant_rows(results):
        if row.coverage is not None:
            target, achieved = f"{row.coverage.target:.0%}", percent_text(row.coverage.achieved)
            left_dense = [
                (layer.name, f"{percent_text(layer.share)} %", layer.reason)
                for layer in row.coverage.left_dense
            ]
            yield row.variant, f"target {target}, achieved {achieved} %", left_dense


def _experts(results: Results) -> Iterator[tuple[str, str, list[Bar]]]:
    """Yield by variant and mixture-of-experts layer how often each expert is selected."""
    for row in _variant_rows(results):
        for layer, shares in (row.model.experts if row.model else {}).items():
            largest = max([*shares, 1e-9])
            bars = [
                Bar(f"{index}: {percent_text(share)} %", share / largest)
                for index, share in enumerate(shares)
            ]
            yield row.variant, layer, bars


def _activations(results: Results) -> tuple[list[str], list[tuple[str, list[Bar | None]]]]:
    """List the variants, and by layer the share of zeros in its rectifier's output."""
    variants = {
        row.variant: row.model.activations
        for row in _variant_rows(results)
        if row.model and row.model.activations
    }
    names = dict.fromkeys(name for layers in variants.values() for name in layers)
    return list(variants), [
        (
            name,
            [
                Bar(f"{percent_text(layers[name])} %", layers[name]) if name in layers else None
                for layers in variants.values()
            ],
        )
        for name in names
    ]


def _inputs(
    provenance: Provenance,
) -> Iterator[tuple[str, Markup | None, list[tuple[str, str]]]]:
    """Yield by variant and input a caption with how many values reach the outputs, their picture
    or, without one, the strongest by name."""
    for variant, inputs in provenance.inputs.items():
        for entry in inputs:
            share = entry.n_connected / max(1, entry.n_values)
            caption = (
                f"{variant}, {entry.input}: {entry.n_connected:,} of {entry.n_values:,} values "
                f"reach the outputs ({share:.1%})"
            )
            if entry.attribution:
                yield caption, charts.attribution_maps(entry), []
                continue
            strongest = [
                (label, ", ".join(f"{name} ({weight:+.2g})" for name, weight in weights))
                for label, weights in entry.strongest.items()
            ]
            yield caption, None, strongest


def _confusions(results: Results) -> Iterator[tuple[str, list[str], list[list[Bar]]]]:
    """Yield by variant and output the confusion matrix: true classes in rows, predicted ones in
    columns."""
    for row in _variant_rows(results):
        by_output = {k: v for k, v in row.details.items() if isinstance(v, Mapping)}
        for output, details in (by_output or {"": row.details}).items():
            matrix: Any = details.get("confusion")
            if not _is_matrix(matrix):
                continue
            names = list(results.provenance.class_names)
            if len(names) != len(matrix):
                names = list(map(str, range(len(matrix))))
            lines = [
                [Bar(str(count), count / max(1, sum(line))) for count in line] for line in matrix
            ]
            yield f"{row.variant}{output and ', '}{output}", names, lines


def _is_matrix(value: Any) -> bool:
    """Check for a square matrix of counts, small enough to show."""
    return (
        isinstance(value, Sequence)
        and 1 < len(value) <= MAX_CLASSES
        and all(isinstance(line, list) and len(line) == len(value) for line in value)
        and all(isinstance(count, int) and count >= 0 for line in value for count in line)
    )
