"""What stands on a page, as plain values for its template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgesparse.measure.provenance import Provenance
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.report.lines import gate_line, release_line, summary
from edgesparse.report.page import charts
from edgesparse.report.page.drawing import places
from edgesparse.report.seeds import over_seeds
from edgesparse.report.table import (
    BEST,
    Block,
    advice,
    blocks,
    cells,
    columns_of,
    device_lines,
    metric_text,
    number_notes,
    percent_text,
    place_of,
    size_text,
    verdicts,
)

_CONFUSION = 24
"""More classes than this make no readable matrix."""
_POINTS = 400
"""Of more rows in a block no chart is drawn."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, what it is sorted by where that is something else, and whether
    it is the best of its column."""

    text: str
    value: str | None = None
    best: bool = False


@dataclass(frozen=True)
class Shown:
    """A block of the table with its charts."""

    anchor: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    charts: tuple[tuple[str, Markup], ...]


@dataclass(frozen=True)
class Bar:
    """A share as a bar: `asked` is marked on it, where somebody asked."""

    text: str
    share: float
    target: float | None = None


def content(results: Results, most_charts: int) -> dict[str, Any]:
    """Everything the template needs, but for how many trainings are left out. At most so many of
    them have charts."""
    # Once more, also what was put in after it was checked: an error, a note.
    results = Results.model_validate(results.model_dump())
    numbered = number_notes(results.rows)
    order = places([row.variant for row in results.rows])
    trainings = results.provenance.trainings
    return {
        "results": results,
        "devices": device_lines(results),
        "blocks": [_shown(n, block, numbered, order) for n, block in enumerate(blocks(results))],
        "numbered": numbered,
        "said": [*advice(results), *results.notes],
        "verdicts": [(line, line.endswith((" pay", " pays"))) for line in verdicts(results)],
        "seeds": over_seeds(results),
        "summary": summary(results),
        "gates": [(gate_line(gate), gate.passed) for gate in results.gates],
        "releases": list(map(release_line, results.releases)),
        "trainings": [(one, charts.learning(one)) for one in trainings[:most_charts]],
        "gaps": list(_gaps(results)),
        "layers": list(_layers(results)),
        "layer_variants": list(results.provenance.layers),
        "left": list(_left_dense(results)),
        "sensitivities": [
            (one, charts.sensitivity(one)) for one in results.provenance.sensitivities
        ],
        "weights": list(_weights(results)),
        "experts": list(_experts(results)),
        "activations": _activations(results),
        "inputs": list(_inputs(results.provenance)),
        "confusions": list(_confusions(results)),
    }


def _shown(number: int, block: Block, numbered: dict[str, int], order: Mapping[str, int]) -> Shown:
    columns = columns_of(block.rows)
    lines = []
    for row, texts in zip(block.rows, cells(block, numbered), strict=True):
        line = [Cell(texts[0])]
        for column, text in zip(columns, texts[1:], strict=True):
            value = column.value(row) if column.value and row.status == "ok" else None
            plain = text.removesuffix(BEST)
            told = plain if value is None else f"{value:.7g}"
            best = text.endswith(BEST)
            line.append(Cell(plain, told if best or told != plain else None, best))
        lines.append(tuple(line))
    rows = [row for row in block.rows if row.status == "ok"]
    metric = next((row.score.name for row in rows if row.score), "metric")
    drawn: tuple[tuple[str, Markup | None], ...] = ()
    if len(rows) <= _POINTS:
        drawn = (
            (f"{metric} against latency", charts.trade_off(block.title, rows, order)),
            (f"{metric} against size", charts.sizes(block.title, rows, order)),
            ("latency by round", charts.by_round(block.title, rows, order)),
        )
    return Shown(
        f"block{number}",
        block.title,
        ("variant", *(column.title for column in columns)),
        tuple(lines),
        tuple((name, chart) for name, chart in drawn if chart is not None),
    )


def _once(results: Results) -> Iterator[Row]:
    """A row of each variant: what is the same wherever it runs."""
    seen = set()
    for row in results.rows:
        if row.status == "ok" and row.variant not in seen:
            seen.add(row.variant)
            yield row


def _gaps(results: Results) -> Iterator[tuple[str, ...]]:
    """By variant the metric on what it was trained on, on test data, and how far apart they are."""
    for row in _once(results):
        score = row.score
        if score is None or score.keras_train is None or score.keras is None:
            continue
        gap = score.sign * (score.keras_train - score.keras)
        texts = (metric_text(value, score.unit) for value in (score.keras_train, score.keras, gap))
        yield (row.variant, f"{score.name} {score.unit}".strip(), *texts)


def _layers(results: Results) -> Iterator[tuple[str, str, list[Bar | None]]]:
    """By layer what each variant reached."""
    made = results.provenance.layers
    sizes: dict[str, int] = {}
    for layer in (layer for layers in made.values() for layer in layers):
        sizes[layer.name] = max(sizes.get(layer.name, 0), layer.size_before or layer.size)
    for name, size in sizes.items():
        bars: list[Bar | None] = []
        for layers in made.values():
            one = next((layer for layer in layers if layer.name == name), None)
            if one is None:
                bars.append(None)
                continue
            pattern = "" if one.pattern == "unstructured" else f" {one.pattern}"
            text = f"{percent_text(one.achieved)} %{pattern}"
            if abs(one.target - one.achieved) > 0.01 and one.target:
                text += f", {one.target:.0%} asked"
            if one.size != size:
                text += f", {one.size:,} weights left"
            bars.append(Bar(text, one.achieved, one.target or None))
        yield name, f"{size:,}", bars


def _left_dense(results: Results) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """By variant: what was asked for and reached, and what stayed dense and why."""
    for row in _once(results):
        if row.coverage is not None:
            done = row.coverage
            text = f"{done.target:.0%} zeros asked for, {percent_text(done.achieved)} % reached"
            left = [
                (one.name, f"{percent_text(one.share)} %", one.reason) for one in done.left_dense
            ]
            yield row.variant, text, left


def _weights(results: Results) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """By row: how each weight is stored, whether that saves time, and why."""
    seen = set()
    for row in results.rows:
        place = f"{row.variant} ({place_of(row, results)})"
        if row.weights and row.status == "ok" and place not in seen:
            seen.add(place)
            yield (
                place,
                [
                    (
                        one.name,
                        one.operator,
                        one.storage,
                        f"{size_text(one.dense_bytes)} → {size_text(one.stored_bytes)}",
                        "saves time" if one.exploited else "no time",
                        one.reason,
                    )
                    for one in row.weights
                ],
            )


def _experts(results: Results) -> Iterator[tuple[str, str, list[Bar]]]:
    for row in _once(results):
        for layer, shares in (row.model.experts if row.model else {}).items():
            largest = max([*shares, 1e-9])
            bars = [
                Bar(f"{place}: {percent_text(share)} %", share / largest)
                for place, share in enumerate(shares)
            ]
            yield row.variant, layer, bars


def _activations(results: Results) -> tuple[list[str], list[tuple[str, list[Bar | None]]]]:
    """The variants, and by layer how much each rectifier of theirs gives that is zero."""
    found = {r.variant: r.model.activations for r in _once(results) if r.model}
    found = {variant: layers for variant, layers in found.items() if layers}
    names = dict.fromkeys(name for layers in found.values() for name in layers)
    return list(found), [
        (
            name,
            [
                Bar(f"{percent_text(layers[name])} %", layers[name]) if name in layers else None
                for layers in found.values()
            ],
        )
        for name in names
    ]


def _inputs(made: Provenance) -> Iterator[tuple[str, str, Markup | None, list[tuple[str, str]]]]:
    """By variant and input: how many values reach the outputs, and the strongest of them."""
    for variant, inputs in made.inputs.items():
        for one in inputs:
            share = one.n_connected / max(1, one.n_values)
            text = (
                f"{variant}, {one.input}: {one.n_connected:,} of {one.n_values:,} values reach the "
                f"outputs ({share:.1%})"
            )
            picture = charts.attribution(one) if one.attribution else None
            named = [
                (label, ", ".join(f"{name} ({value:+.2g})" for name, value in values))
                for label, values in one.strongest.items()
            ]
            yield variant, text, picture, [] if picture is not None else named


def _confusions(results: Results) -> Iterator[tuple[str, list[str], list[list[Bar]]]]:
    """By variant and output: how often each class (row) was taken for each (column)."""
    for row in _once(results):
        nested = {k: v for k, v in row.details.items() if isinstance(v, Mapping)}
        for output, found in (nested or {"": row.details}).items():
            matrix: Any = found.get("confusion")
            if not _is_matrix(matrix):
                continue
            names = list(results.provenance.class_names)
            if len(names) != len(matrix):
                names = [str(place) for place in range(len(matrix))]
            lines = [
                [Bar(str(count), count / max(1, sum(line))) for count in line] for line in matrix
            ]
            yield f"{row.variant}{output and ', '}{output}", names, lines


def _is_matrix(found: Any) -> bool:
    return (
        isinstance(found, Sequence)
        and 1 < len(found) <= _CONFUSION
        and all(isinstance(line, list) and len(line) == len(found) for line in found)
        and all(isinstance(count, int) and count >= 0 for line in found for count in line)
    )
