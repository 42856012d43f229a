"""The results table as data: a block per device, runtime and number of threads, its columns and
cells.

The terminal, markdown and the page render the same `Cell`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgesparse.measure.instruction_counts import incomparable_formats
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Interval, ModelFile, Row, Score
from edgesparse.measure.selection import best_row, clearly_slower, clearly_worse
from edgesparse.report.units import (
    DASH,
    count_text,
    metric_text,
    ms_text,
    percent_text,
    size_text,
    speed_interval_text,
    speed_text,
)
from edgesparse.spec.safe.text import clean
from edgesparse.spec.sparsify import REPORTED_GAP

FAILED = "FAILED"
SHIP_LEGEND = "ship this"
BEST_LEGEND = "best, or equal to it within the 95 % CI"
ACTIVATION_ZEROS_RANGE = 0.1
"""Zeros among activations have a column where variants differ by at least this share."""
MACS_RATIO = 1.05
"""Multiply-accumulates have a column where the largest is this many times the smallest."""
UNSTABLE = "unstable: "
"""What notes on unstable times begin with."""
TIME_COLUMNS = ("p50 ms", "p90 ms", "speed-up")
_SHORT_NAMES = {"accuracy": "acc"}


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        text: what is shown.
        value: the number behind the text, for sorting; None where there is none.
        best: whether the value is the column's best, or not told apart from it; of a variant's
            name, whether it is the one to ship.
    """

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: with the unit.
        text: a row's text; None is shown as a dash.
        value: a row's number, which decides which row is best; None for columns without a best.
        highest_is_best: whether larger values are better.
        beaten: whether the first row differs clearly from the second, which has the best value.
    """

    title: str
    text: Callable[[Row], str | None]
    value: Callable[[Row], float | None] | None = None
    highest_is_best: bool = False
    beaten: Callable[[Row, Row], bool] = lambda _row, _best: True


@dataclass(frozen=True)
class Block:
    """Rows that are comparable: one device, runtime and number of threads.

    Attributes:
        incomparable_formats: why times of number formats are not comparable, or None.
        shipped: the row to ship on the device, which can be one of another block.
    """

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    incomparable_formats: str | None = None
    shipped: Row | None = None

    @property
    def titles(self) -> list[str]:
        """Column titles, the variant's name first."""
        return ["variant", *(column.title for column in self.columns)]


def blocks(results: Results) -> list[Block]:
    """Group a run's rows into blocks, in the order of the rows."""
    groups: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in results.rows:
        key = (row.device, row.runtime.name, row.runtime.version, row.threads)
        groups.setdefault(key, []).append(row)
    cpus = {device.name: device.cpu for device in results.devices}
    shipped = {
        name: best_row((row for row in results.rows if row.device == name), results.gates)
        for name in dict.fromkeys(row.device for row in results.rows)
    }
    return [
        _block(rows, cpus.get(device, ""), shipped[device]) for (device, *_), rows in groups.items()
    ]


def _block(rows: Sequence[Row], cpu: str, shipped: Row | None) -> Block:
    row, reason = rows[0], incomparable_formats(rows, cpu)
    others = dict.fromkeys(r.delegate for r in rows if r.delegate != row.delegate)
    parts = [
        row.device,
        f"{row.runtime.name} {row.runtime.version}",
        ", ".join([f"delegate {row.delegate}", *(f"{_mark(name)} {name}" for name in others)]),
        "1 thread" if row.threads == 1 else f"{row.threads} threads",
    ]
    if row.clock == "instructions":
        simulated = "time = INSTRUCTION COUNT (simulated)"
        parts.append(simulated + (f"; {reason}" if reason else ""))
    return Block(" | ".join(parts), tuple(rows), tuple(_columns(rows)), reason, shipped)


def _mark(delegate: str) -> str:
    """Mark of a row whose delegate is not that of its block's first row."""
    return "(t)" if delegate == "edgetpu" else f"({delegate[:1]})"


def _columns(rows: Sequence[Row]) -> Iterator[Column]:
    """Yield the columns for rows of one task; its metric names two of them."""
    yield _SIZE
    if any(row.transfer_bytes is not None for row in rows):
        yield _TRANSFER
    yield Column("zeros %", _zeros_text)
    yield from _usage_columns(rows)
    default = Score(name="accuracy", unit="%", samples=0)
    score = next((row.score for row in rows if row.score is not None), default)
    yield Column(
        clean(f"{_SHORT_NAMES.get(score.name, score.name)} {score.unit}".strip()),
        lambda r: score_text(r.score),
        lambda r: r.score.shown if r.score else None,
        highest_is_best=score.direction == "maximize",
        beaten=clearly_worse,
    )
    yield Column("drop", _drop_text)
    yield from _COST_COLUMNS


_SIZE = Column(
    "size",
    lambda r: size_text(r.model.bytes) if r.model else None,
    lambda r: float(r.model.bytes) if r.model else None,
)
_TRANSFER = Column(
    "transfer",
    lambda r: size_text(r.transfer_bytes) if r.transfer_bytes else None,
    lambda r: float(r.transfer_bytes) if r.transfer_bytes else None,
)
_MACS = Column(
    "MACs",
    lambda r: count_text(r.model.macs) if r.model and r.model.macs is not None else None,
    lambda r: float(r.model.macs) if r.model and r.model.macs is not None else None,
)


def _usage_columns(rows: Sequence[Row]) -> Iterator[Column]:
    """Yield columns for the part of a network that an inference uses, where variants differ."""
    files = [row.model for row in rows if row.model is not None]
    if any(file.active_parameters is not None for file in files):
        yield Column("weights", lambda r: count_text(r.model.parameters) if r.model else None)
        yield Column("active", lambda r: _active_text(r.model))
    macs = [file.macs for file in files if file.macs is not None]
    if macs and max(macs) > min(macs) * MACS_RATIO:
        yield _MACS
    zeros = [file.activation_zeros for file in files if file.activation_zeros is not None]
    if len(zeros) > 1 and max(zeros) - min(zeros) >= ACTIVATION_ZEROS_RANGE:
        yield Column("act. zeros %", lambda r: _activation_zeros_text(r.model))


def _active_text(file: ModelFile | None) -> str | None:
    """Number of weights that one inference reads."""
    if file is None:
        return None
    return count_text(file.parameters if file.active_parameters is None else file.active_parameters)


def _activation_zeros_text(file: ModelFile | None) -> str | None:
    zeros = file.activation_zeros if file else None
    return None if zeros is None else percent_text(zeros)


def _zeros_text(row: Row) -> str | None:
    """Achieved sparsity, after the target where the two differ."""
    if row.model is None:
        return None
    achieved = percent_text(row.model.sparsity)
    if row.coverage is None or abs(row.coverage.target - row.model.sparsity) <= REPORTED_GAP:
        return achieved
    return f"{row.coverage.target:.0%}".rstrip("%") + f"->{achieved}"


def score_text(score: Score | None) -> str | None:
    """Format a metric's value on the device (or the host), without its unit."""
    value = score.shown if score else None
    return None if score is None or value is None else metric_text(value, score.unit)


def _drop_text(row: Row) -> str | None:
    """Loss of the metric ± half its interval."""
    score = row.score
    if score is None or score.drop is None:
        return None
    factor, digits = (100, ".1f") if score.unit == "%" else (1, ".2g")
    text = f"{score.drop * factor:+{digits}}"
    if not float(text):
        text = "0.0"
    if score.drop_ci95 is None or score.drop_ci95 == (0.0, 0.0):
        return text
    half = (score.drop_ci95[1] - score.drop_ci95[0]) / 2
    return f"{text}±{half * factor:{digits}}"


def _interval_text(interval: Interval, text: Callable[[float], str]) -> str:
    return f"{text(interval[0])}-{text(interval[1])}"


_COST_COLUMNS = (
    Column(
        "p50 ms",
        lambda r: ms_text(r.latency_ms.p50) if r.latency_ms else None,
        lambda r: r.latency_ms.p50 if r.latency_ms else None,
        beaten=clearly_slower,
    ),
    Column(
        "p50 95 % CI",
        lambda r: _interval_text(r.latency_ms.ci95, ms_text) if r.latency_ms else None,
    ),
    Column(
        "p90 ms",
        lambda r: ms_text(r.latency_ms.p90) if r.latency_ms else None,
        lambda r: r.latency_ms.p90 if r.latency_ms else None,
        # p90 has no interval; rows that the median does not tell apart count as equal.
        beaten=clearly_slower,
    ),
    Column(
        "speed-up",
        lambda r: speed_text(r.speedup.ratio) if r.speedup else None,
        lambda r: r.speedup.ratio if r.speedup else None,
        highest_is_best=True,
        beaten=clearly_slower,
    ),
    Column(
        "95 % CI",
        lambda r: speed_interval_text(r.speedup.ci95, r.speedup.ratio) if r.speedup else None,
    ),
    Column(
        "RAM MB",
        lambda r: f"{r.peak_rss_bytes / 1e6:.0f}" if r.peak_rss_bytes else None,
        lambda r: float(r.peak_rss_bytes) if r.peak_rss_bytes else None,
    ),
)


def block_cells(block: Block, note_numbers: dict[str, int]) -> list[list[Cell]]:
    """Build a block's cells, row by row.

    Args:
        note_numbers: as `number_notes` returns them; the variant's cell refers to its notes.
    """
    best = [_best_rows(block, column) for column in block.columns]
    lines = []
    for index, row in enumerate(block.rows):
        numbers = (note_numbers.get(note) for note in notes_of(row))
        marks = "".join(f" [{number}]" for number in numbers if number is not None)
        if row.delegate != block.rows[0].delegate:
            marks = f" {_mark(row.delegate)}{marks}"
        line = [Cell(row.variant + marks, best=row is block.shipped)]
        for column, best_rows in zip(block.columns, best, strict=True):
            text = column.text(row) if row.status == "ok" else None
            value = column.value(row) if column.value and row.status == "ok" else None
            line.append(Cell(DASH if text is None else text, value, index in best_rows))
        if row.status == "failed":
            line[1] = Cell(FAILED)
        lines.append(line)
    return lines


def _best_rows(block: Block, column: Column) -> set[int]:
    """Indices of the rows that are best in a column; none where all of them are equally good."""
    if column.value is None or (block.incomparable_formats and column.title in TIME_COLUMNS):
        return set()
    values = {
        index: value
        for index, row in enumerate(block.rows)
        if row.status == "ok" and (value := column.value(row)) is not None
    }
    if len(set(values.values())) < 2:
        return set()
    top = (max if column.highest_is_best else min)(values, key=lambda index: values[index])
    best = block.rows[top]
    equal = {
        index
        for index, value in values.items()
        if value == values[top] or not column.beaten(block.rows[index], best)
    }
    return equal if len(equal) < len(values) else set()


def notes_of(row: Row) -> list[str]:
    """List a row's error and notes, but for those on unstable times, which have a line of their
    own."""
    notes = [note for note in row.notes if not note.startswith(UNSTABLE)]
    return ([row.error] if row.error else []) + notes


def number_notes(rows: Iterable[Row]) -> dict[str, int]:
    """Number the distinct notes of rows from 1, in the order of the rows."""
    notes = dict.fromkeys(note for row in rows for note in notes_of(row))
    return {note: number for number, note in enumerate(notes, start=1)}


def placement_label(row: Row, results: Results) -> str:
    """Name a row's runtime, with threads and device where they tell blocks apart."""
    runtime = row.runtime.name + (f", {row.threads} threads" if row.threads > 1 else "")
    return f"{row.device}, {runtime}" if len(results.devices) > 1 else runtime
