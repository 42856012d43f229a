"""A run's results in a notebook: its tables as HTML, and a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.report.table import Block, block_cells, blocks, number_notes
from edgesparse.report.table_notes import QUICK
from edgesparse.report.verdicts import ship_lines
from edgesparse.spec.safe.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCH_PER_CHART = (6.0, 3.6)
_CELL, _BEST = Markup("<td>{}</td>"), Markup("<td><b>{}</b></td>")
_FAILED = Markup("<p>failed: {}</p>")


def html_tables(results: Results) -> str:
    """Format results as HTML: what to ship, then tables with each best value in bold.

    Texts of devices are escaped.
    """
    kind = f" ({QUICK})" if results.quick else ""
    parts = [Markup("<p><b>{}</b>{} {}</p>").format(results.pipeline, kind, results.run)]
    numbers = number_notes(results.rows)
    parts += [Markup("<p>{}</p>").format(clean(verdict.text)) for verdict in ship_lines(results)]
    parts += [_table(block, numbers) for block in blocks(results)]
    parts += [_FAILED.format(clean(line)) for line in results.failures]
    if numbers:
        notes = (Markup("<li>{}</li>").format(clean(note)) for note in numbers)
        text = Markup("<details><summary>{} notes</summary><ol>{}</ol></details>")
        parts.append(text.format(len(numbers), Markup("").join(notes)))
    return str(Markup("\n").join(parts))


def _table(block: Block, numbers: dict[str, int]) -> Markup:
    head = Markup("").join(Markup("<th>{}</th>").format(clean(title)) for title in block.titles)
    lines = []
    for cells in block_cells(block, numbers):
        texts = ((_BEST if cell.best else _CELL).format(clean(cell.text)) for cell in cells)
        lines.append(Markup("").join(texts))
    body = Markup("").join(Markup("<tr>{}</tr>").format(line) for line in lines)
    return Markup("<table><caption>{}</caption><tr>{}</tr>{}</table>").format(
        clean(block.title), head, body
    )


def plot(results: Results) -> Figure:
    """Draw metric over latency, or latency alone where rows have no metric: an axes for each
    device, runtime and number of threads.

    Returns:
        A figure of its own, which pyplot does not manage; notebooks show it as a cell's value.
    """
    from edgesparse.report.page.drawing import ShownFigure

    groups = [(b.title, [r for r in b.rows if r.status == "ok"]) for b in blocks(results)]
    groups = [(title, rows) for title, rows in groups if any(r.latency_ms for r in rows)]
    width, height = _INCH_PER_CHART
    count = max(1, len(groups))
    figure = ShownFigure(figsize=(width, height * count), layout="constrained")
    for number, (title, rows) in enumerate(groups, start=1):
        axes = figure.add_subplot(count, 1, number)
        axes.set_title(clean(title), fontsize=9, parse_math=False)
        _draw(axes, [row for row in rows if row.latency_ms])
    return figure


def _draw(axes: Axes, rows: list[Row]) -> None:
    clock = "ms (instruction count)" if rows[0].clock == "instructions" else "ms"
    axes.set_xlabel(f"latency p50 in {clock}")
    scored = all(row.score is not None and row.score.shown is not None for row in rows)
    for index, row in enumerate(rows):
        assert row.latency_ms is not None
        p50, (low, high) = row.latency_ms.p50, row.latency_ms.ci95
        error = [[max(0.0, p50 - low)], [max(0.0, high - p50)]]
        name = clean(row.variant)
        if scored:
            score = row.score
            assert score is not None
            assert score.shown is not None
            value = score.shown * (100 if score.unit == "%" else 1)
            axes.errorbar([p50], [value], xerr=error, fmt="o")
            axes.annotate(
                name, (p50, value), (4, 4), textcoords="offset points", fontsize=8, parse_math=False
            )
            axes.set_ylabel(clean(f"{score.name} {score.unit}".strip()), parse_math=False)
        else:
            axes.barh([index], [p50], xerr=error)
    if not scored:
        axes.set_yticks(range(len(rows)), [clean(row.variant) for row in rows], parse_math=False)
        axes.invert_yaxis()
