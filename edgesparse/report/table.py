"""Results as tables: a block per device, runtime and number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgesparse.measure.clock import formats_apart
from edgesparse.measure.results import Results
from edgesparse.measure.rows import PAYS_FROM, Interval, ModelFile, Row, Score
from edgesparse.spec.safe.text import clean
from edgesparse.spec.sparsify import REPORTED_GAP

BEST = "*"
DASH = "-"
FAILED = "FAILED"
FEW_ZEROS = 0.05
"""Up to this share of zeros what a variant gained comes from channels that are gone."""
ACTIVATIONS_DIFFER = 0.1
"""From so much on, zeros among activations have a column."""
SMALLER = 1.05
"""From this ratio on a file counts as smaller, and multiply-accumulates have a column."""


@dataclass(frozen=True)
class Column:
    """A column: its text for a row, and the number by which the best row is found."""

    title: str
    text: Callable[[Row], str | None]
    value: Callable[[Row], float | None] | None = None
    highest_is_best: bool = False
    interval: Callable[[Row], Interval | None] = lambda _: None
    """Rows whose intervals overlap are not told apart: they are as good as one another."""


def size_text(size_bytes: int) -> str:
    """Bytes in at most six characters and a unit (powers of 1000, as disks are sold)."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    for unit, factor in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        value = size_bytes / factor
        if value < 999.5 or unit == "GB":
            return f"{value:.2f} {unit}" if value < 10 else f"{value:.4g} {unit}"
    raise AssertionError


def ms_text(value: float) -> str:
    """About three significant digits, never in exponent form."""
    if value < 0.01:
        return f"{value:.4f}"
    if value >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def ratio_text(ratio: float) -> str:
    """Two decimals, or two digits of what would read as nothing."""
    return f"{ratio:.2f}" if ratio >= 0.05 else f"{ratio:.2g}"


def percent_text(share: float) -> str:
    return f"{share * 100:.1f}"


COLUMNS = (
    Column(
        "size",
        lambda r: size_text(r.model.bytes) if r.model else None,
        lambda r: float(r.model.bytes) if r.model else None,
    ),
    Column("zeros %", lambda r: _zeros(r)),
    # The task's metric stands here; see columns_of.
    Column(
        "p50 ms",
        lambda r: ms_text(r.latency_ms.p50) if r.latency_ms else None,
        lambda r: r.latency_ms.p50 if r.latency_ms else None,
        interval=lambda r: _latency_interval(r),
    ),
    Column(
        "95 % of p50", lambda r: _interval(r.latency_ms.ci95, ms_text) if r.latency_ms else None
    ),
    Column(
        "p90 ms",
        lambda r: ms_text(r.latency_ms.p90) if r.latency_ms else None,
        lambda r: r.latency_ms.p90 if r.latency_ms else None,
        # It has none of its own: runs whose medians are alike are alike.
        interval=lambda r: _latency_interval(r),
    ),
    Column(
        "speed-up",
        lambda r: f"{ratio_text(r.speedup.ratio)}x" if r.speedup else None,
        lambda r: r.speedup.ratio if r.speedup else None,
        highest_is_best=True,
        interval=lambda r: r.speedup.ci95 if r.speedup else None,
    ),
    Column("95 %", lambda r: _interval(r.speedup.ci95, ratio_text) if r.speedup else None),
    Column(
        "MB RAM",
        lambda r: f"{r.peak_rss_bytes / 1e6:.0f}" if r.peak_rss_bytes else None,
        lambda r: float(r.peak_rss_bytes) if r.peak_rss_bytes else None,
    ),
)


def _latency_interval(row: Row) -> Interval | None:
    return row.latency_ms.ci95 if row.latency_ms else None


def _drop_interval(row: Row) -> Interval | None:
    """Of what is lost against the baseline, sample by sample: narrower than the metric's own."""
    if row.score is None:
        return None
    return row.score.drop_ci95 or (None if row.score.drop is None else (row.score.drop,) * 2)


def _zeros(row: Row) -> str | None:
    """Asked and reached side by side, where they differ."""
    if row.model is None:
        return None
    reached = percent_text(row.model.sparsity)
    if row.coverage is None or abs(row.coverage.target - row.model.sparsity) <= REPORTED_GAP:
        return reached
    return f"{row.coverage.target:.0%}".rstrip("%") + f"->{reached}"


MARKED = "best, or not significantly different from the best (95 % CI)"
TIMES = ("p50 ms", "p90 ms", "speed-up")
_METRIC_AT = 2
"""Where the task's metric and what is lost of it stand among the columns."""
_SHORT = {"accuracy": "acc"}


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns for rows of one task: its metric gives two of them their names."""
    first = next((row.score for row in rows if row.score is not None), None)
    if first is None:
        first = Score(name="accuracy", unit="%", samples=0)
    title = clean(f"{_SHORT.get(first.name, first.name)} {first.unit}".strip())
    metric = Column(
        title,
        lambda r: _metric(r.score),
        lambda r: r.score.shown if r.score else None,
        highest_is_best=first.direction == "maximize",
        interval=_drop_interval,
    )
    used = _usage_columns(rows)
    size, zeros = COLUMNS[:_METRIC_AT]
    sent = [_SENT] if any(row.transfer_bytes is not None for row in rows) else []
    return (size, *sent, zeros, *used, metric, Column("drop", _drop), *COLUMNS[_METRIC_AT:])


_SENT = Column(
    "to send",
    lambda r: size_text(r.transfer_bytes) if r.transfer_bytes else None,
    lambda r: float(r.transfer_bytes) if r.transfer_bytes else None,
)
"""Of devices behind a wire."""


_MACS = Column(
    "MACs",
    lambda r: count_text(r.model.macs) if r.model and r.model.macs is not None else None,
    lambda r: float(r.model.macs) if r.model and r.model.macs is not None else None,
)


def _usage_columns(rows: Sequence[Row]) -> list[Column]:
    """What one inference uses of a network, where variants differ in it."""
    files = [row.model for row in rows if row.model is not None]
    found = []
    if any(file.active_parameters is not None for file in files):
        found.append(
            Column("weights", lambda r: count_text(r.model.parameters) if r.model else None)
        )
        found.append(Column("active", lambda r: count_text(active(r.model)) if r.model else None))
    macs = [file.macs for file in files if file.macs is not None]
    if macs and max(macs) > min(macs) * SMALLER:
        found.append(_MACS)
    zeros = [file.activation_zeros for file in files if file.activation_zeros is not None]
    if len(zeros) > 1 and max(zeros) - min(zeros) >= ACTIVATIONS_DIFFER:
        found.append(Column("act. zeros %", _activation_zeros))
    return found


def active(file: ModelFile) -> int:
    """How many weights one inference reads."""
    return file.parameters if file.active_parameters is None else file.active_parameters


def _activation_zeros(row: Row) -> str | None:
    known = row.model.activation_zeros if row.model else None
    return None if known is None else percent_text(known)


def count_text(count: int) -> str:
    """About three significant digits: 950, 12.3k, 4.56M."""
    for unit, factor in (("", 1), ("k", 1e3), ("M", 1e6), ("G", 1e9)):
        value = count / factor
        if value < 999.5 or unit == "G":
            return f"{value:.3g}{unit}" if unit else str(count)
    raise AssertionError


def metric_text(value: float, unit: str) -> str:
    """A metric without its unit."""
    return percent_text(value) if unit == "%" else f"{value:.3g}"


def _metric(score: Score | None) -> str | None:
    value = score.shown if score else None
    return None if score is None or value is None else metric_text(value, score.unit)


def _drop(row: Row) -> str | None:
    """What is lost, with half its interval: within it, there is no saying that anything is."""
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


def _interval(interval: tuple[float, float], text: Callable[[float], str]) -> str:
    return f"{text(interval[0])}-{text(interval[1])}"


@dataclass(frozen=True)
class Block:
    """Rows that may be compared: one device, runtime and number of threads."""

    title: str
    rows: tuple[Row, ...]
    formats_apart: str | None = None
    """Why times may not be compared across number formats."""


def blocks(results: Results) -> list[Block]:
    groups: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in results.rows:
        key = (row.device, row.runtime.name, row.runtime.version, row.threads)
        groups.setdefault(key, []).append(row)
    cpus = {device.name: device.cpu for device in results.devices}
    found = []
    for rows in groups.values():
        apart = formats_apart(rows, cpus.get(rows[0].device, ""))
        found.append(Block(_title(results, rows[0], apart), tuple(rows), apart))
    return found


def _title(results: Results, row: Row, apart: str | None) -> str:
    threads = "1 thread" if row.threads == 1 else f"{row.threads} threads"
    parts = [
        row.device,
        f"{row.runtime.name} {row.runtime.version}",
        f"delegate {row.delegate}",
        threads,
    ]
    if row.clock == "instructions":
        parts.append("clock: INSTRUCTIONS, not time" + (f"; {apart}" if apart else ""))
    return " | ".join(parts)


def cells(block: Block, numbered: dict[str, int]) -> list[list[str]]:
    """The block's texts, row by row; the best of a column is marked with those that are as good by
    their intervals, unless all are; failures point to a note."""
    best: dict[str, list[Row]] = {}
    good = [row for row in block.rows if row.status == "ok"]
    columns = columns_of(block.rows)
    for column in columns:
        valued = [(column.value(row), row) for row in good] if column.value else []
        known = [(value, row) for value, row in valued if value is not None]
        if block.formats_apart and column.title in TIMES:
            known = []  # No best of what cannot be compared.
        if len(known) > 1 and len({value for value, _ in known}) > 1:
            pick = max if column.highest_is_best else min
            top = pick(known, key=lambda pair: pair[0])
            alike = [row for value, row in known if value == top[0] or _alike(column, row, top[1])]
            best[column.title] = alike if len(alike) < len(known) else []
    lines = []
    for row in block.rows:
        marks = "".join(f" [{numbered[note]}]" for note in notes_of(row))
        line = [row.variant + marks]
        for column in columns:
            text = column.text(row) if row.status == "ok" else None
            mark = BEST if any(row is one for one in best.get(column.title, ())) else ""
            line.append(DASH if text is None else text + mark)
        if row.status == "failed":
            line[1] = FAILED
        lines.append(line)
    return lines


def _alike(column: Column, one: Row, other: Row) -> bool:
    a, b = column.interval(one), column.interval(other)
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def notes_of(row: Row) -> list[str]:
    return ([row.error] if row.error else []) + row.notes


def number_notes(rows: Iterable[Row]) -> dict[str, int]:
    """Notes in the order of their rows, each once."""
    numbered: dict[str, int] = {}
    for row in rows:
        for note in notes_of(row):
            numbered.setdefault(note, len(numbered) + 1)
    return numbered


def device_lines(results: Results) -> list[str]:
    lines = []
    for device in results.devices:
        if device.error:
            lines.append(f"{device.name}: {device.error}")
            continue
        cores = f", {device.cores} core{'s' * (device.cores != 1)}" if device.cores else ""
        governor = f", governor {device.governor}" if device.governor else ""
        lines.append(
            f"{device.name}: {device.machine}, {device.cpu}{cores}{governor}, "
            f"Python {device.python}"
        )
    return lines


def advice(results: Results) -> list[str]:
    """What to do about rows that are not to be trusted; said once."""
    if not any("unstable" in note for row in results.rows for note in row.notes):
        return []
    return ["unstable rows: end other programs, fix the CPU governor or raise benchmark.rounds"]


def verdicts(results: Results) -> list[str]:
    """Whether each sparse variant's zeros pay: in time by interval, and in bytes."""
    lines = []
    for block in blocks(results):
        twins = {row.variant: row for row in block.rows}
        for row in block.rows:
            speedup = row.speedup_vs_dense
            if row.status != "ok" or speedup is None or row.model is None:
                continue
            dense = twins.get(speedup.baseline)
            twin = dense.model if dense is not None else None
            size = ""
            if twin is not None and twin.bytes > row.model.bytes * SMALLER:
                size = f", {twin.bytes / row.model.bytes:.1f}x smaller"
            # As shown: an interval that reads "0.97-1.00x" must not be called a loss.
            low, high = (float(ratio_text(limit)) for limit in speedup.ci95)
            what = _doing(row, dense)
            faster = low > 1 and speedup.ratio >= PAYS_FROM
            if faster and what == "half precision":
                verdict = "computes in half precision, which pays"
            elif what == "half precision":
                verdict = "computes as before: half precision does not pay"
            elif faster and what == "zeros" and row.zeros_exploited is False:
                verdict = "faster, though this runtime skips none of its zeros"
            elif faster:
                verdict = f"{what} pay"
            elif high < 1:
                verdict = f"{what} cost time"
            else:
                verdict = f"{what} pay in size" if size else f"{what} do not pay"
            lines.append(
                f"{row.variant} ({place_of(row, results)}): {ratio_text(low)}-{ratio_text(high)}x "
                f"as fast as {speedup.baseline}{size}: {verdict}"
            )
    return lines


def place_of(row: Row, results: Results) -> str:
    """What tells a row's block from the others, in few words."""
    place = row.runtime.name + (f", {row.threads} threads" if row.threads > 1 else "")
    return f"{row.device}, {place}" if len(results.devices) > 1 else place


def _doing(row: Row, twin: Row | None) -> str:
    """What a gain against a twin is owed to: of the steps that the twin has not, those that have a
    way to it."""
    own = row.steps[len(twin.steps) if twin is not None else 0 :]
    if row.half_precision is not None:  # Its zeros are stored densely, and do nothing.
        return "removed channels and half precision" if "channels" in own else "half precision"
    if not own:  # Of a run before that was known.
        few = row.coverage is None and row.model is not None and row.model.sparsity <= FEW_ZEROS
        return "removed channels" if few else "zeros"
    channels = "channels" in own
    zeros = any(step not in ("activations", "channels", "weight_sharing", "inputs") for step in own)
    if "activations" in own and not zeros and not channels:
        return "zeros among activations"
    if "inputs" in own and not zeros and not channels:
        return "inputs that left"
    if channels and zeros:
        return "removed channels and zeros" if row.zeros_exploited else "removed channels"
    return "removed channels" if channels else "zeros" if zeros else "shared values"
