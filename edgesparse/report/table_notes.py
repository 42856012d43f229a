"""Text lines around the tables: devices, unstable rows, seeds, releases, gates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgesparse.measure.results import ReleaseInfo, Results
from edgesparse.measure.rows import GateResult, Row
from edgesparse.measure.statistics import half_width
from edgesparse.report.table import UNSTABLE, blocks, placement_label, score_text
from edgesparse.report.units import percent_text, size_text, speed_text

QUICK = "QUICK: indicative only"


def device_lines(results: Results) -> list[str]:
    """Describe each device, or its error."""
    lines = []
    for device in results.devices:
        if device.error:
            lines.append(f"{device.name}: {device.error}")
            continue
        cores = f", {device.cores} core{'s' * (device.cores != 1)}" if device.cores else ""
        governor = f", governor {device.governor}" if device.governor else ""
        python = f", Python {device.python}" if device.python else ""
        lines.append(f"{device.name}: {device.machine}, {device.cpu}{cores}{governor}{python}")
    return lines


def legend(results: Results) -> str:
    """Name the baseline that speed-ups refer to; on a device that cannot run it, the substitute."""
    others = {
        row.device: row.speedup.baseline
        for row in results.rows
        if row.speedup is not None and row.speedup.baseline != results.baseline
    }
    exceptions = "".join(f" ({name} on {device})" for device, name in others.items())
    return f"speed-up vs {results.baseline}{exceptions}"


def unstable_lines(results: Results) -> list[str]:
    """Name the unstable rows and what helps, in one line."""
    names = [
        f"{row.variant} ({placement_label(row, results)})"
        for row in results.rows
        if any(note.startswith(UNSTABLE) for note in row.notes)
    ]
    if not names:
        return []
    subject = f"{len(names)} rows" if len(names) > 2 else " and ".join(names)
    return [
        f"unstable: {subject}; stop other programs, fix the CPU governor or raise benchmark.rounds"
    ]


FAR_OFF = 0.2
"""Difference of a predicted and a measured speed-up from which on the prediction was wrong."""


@dataclass(frozen=True)
class PredictionLine:
    """The speed-up of a variant as predicted before training, and as measured, as texts."""

    variant: str
    predicted: str
    measured: str
    difference: str
    good: bool


def predicted_rows(results: Results) -> Iterator[PredictionLine]:
    """Compare each predicted speed-up with the measured one."""
    for row in results.rows:
        speedup = row.speedup_vs_dense
        if row.predicted_speedup is None or speedup is None:
            continue
        off = row.predicted_speedup / speedup.ratio - 1
        measured = f"{speed_text(speedup.ratio)} vs {speedup.baseline}"
        yield PredictionLine(
            f"{row.variant} ({placement_label(row, results)})",
            speed_text(row.predicted_speedup),
            measured,
            f"{off:+.0%}",
            abs(off) <= FAR_OFF,
        )


def prediction_lines(results: Results, *, summarized: bool = False) -> list[tuple[str, bool]]:
    """Compare predicted speed-ups with measured ones, a line each; False for those far off.

    Args:
        summarized: only count those that are not far off.
    """
    lines = [
        (
            f"{line.variant}: predicted {line.predicted}, measured {line.measured} "
            f"({line.difference})",
            line.good,
        )
        for line in predicted_rows(results)
    ]
    good = sum(is_good for _, is_good in lines)
    if not summarized or not good:
        return lines
    within = f"{good} of {len(lines)} predicted speed-ups are within {FAR_OFF:.0%} of the measured"
    return [(within, True), *(line for line in lines if not line[1])]


def ready_text(row: Row) -> str:
    """Describe a variant that is verified and not measured yet."""
    texts = []
    if row.model is not None:
        texts += [size_text(row.model.bytes), f"{percent_text(row.model.sparsity)} % zeros"]
    if row.score is not None and (value := score_text(row.score)) is not None:
        texts.append(f"{row.score.name} {value} {row.score.unit}".rstrip())
    return f"{row.variant}: {', '.join(texts)}; its time follows"


def gate_lines(results: Results) -> list[tuple[str, bool]]:
    """Describe each gate that is not met, once for all of its rows, and count the others; True for
    those met."""
    missed: dict[tuple[str, str], list[GateResult]] = {}
    for gate in results.gates:
        if not gate.passed:
            missed.setdefault((gate.variant, gate.metric), []).append(gate)
    lines = []
    for gates in missed.values():
        text = gate_line(gates[0].model_copy(update={"warning": None}))
        more = len(gates) - 1
        lines.append((text + (f" and {more} more row{'s' * (more > 1)}" if more else ""), False))
    met = sum(gate.passed for gate in results.gates)
    return [*lines, *([(f"{met} gate{'s' * (met > 1)} met", True)] if met else [])]


def note_lines(results: Results) -> list[str]:
    """List what only those read who ask for it: advice, unstable rows, gates that are met or
    uncertain."""
    unstable = [
        f"{row.variant} ({placement_label(row, results)}): {note}"
        for row in results.rows
        for note in row.notes
        if note.startswith(UNSTABLE)
    ]
    gates = [gate_line(gate) for gate in results.gates if gate.passed or gate.warning]
    return [*results.advice, *unstable, *gates]


def release_line(release: ReleaseInfo) -> str:
    """Describe a release: what it is, what it replaces, how to run it."""
    transfer = f", {size_text(release.transfer_bytes)} sent" if release.transfer_bytes else ""
    replaced = f", replaces {release.previous}" if release.previous else ""
    usage = (
        f"run on the device: {release.run_command}"
        if release.run_command
        else "not kept: the emulated device is ephemeral"
    )
    warning = f"; {release.warning}" if release.warning else ""
    return (
        f"released on {release.device}: {release.pipeline} {release.digest} "
        f"({release.variant}, {release.runtime}{transfer}){replaced}; {usage}{warning}"
    )


def gate_line(gate: GateResult) -> str:
    """Describe the outcome of a gate on a row."""
    limits = [] if gate.min is None else [f"at least {gate.min:g}"]
    limits += [] if gate.max is None else [f"at most {gate.max:g}"]
    value = "has no value" if gate.value is None else f"{gate.value:.4g}"
    return (
        f"gate {'met' if gate.passed else 'NOT MET'}: {gate.variant} {gate.metric} {value} "
        f"({' and '.join(limits)}) on {gate.device}, {gate.runtime}"
        + (f": {gate.warning}" if gate.warning else "")
    )


def seed_lines(results: Results) -> Iterator[str]:
    """Give the mean of the metric, with its interval, over variants that differ only in their seed;
    and the difference of each such group to the block's first group."""
    for block in blocks(results):
        groups: dict[str, list[Row]] = {}
        for row in block.rows:
            if row.seed_group is not None and row.status == "ok" and row.score is not None:
                groups.setdefault(row.seed_group, []).append(row)
        groups = {name: rows for name, rows in groups.items() if len(_values(rows)) > 1}
        first = next(iter(groups), None)
        for name, rows in groups.items():
            score, values = rows[0].score, _values(rows)
            assert score is not None
            is_share = score.unit == "%"
            line = (
                f"{', '.join(row.variant for row in rows)} "
                f"({placement_label(block.rows[0], results)}): {score.name} "
                f"{_number(statistics.mean(values), is_share)} "
                f"±{_number(_half_interval(values), is_share)} over {len(values)} seeds"
            )
            if name != first and first is not None:
                difference, half = _difference(values, _values(groups[first]))
                line += f", {_number(difference, is_share, '+')} ±{_number(half, is_share)}"
                line += f" vs {first}"
            yield line


def _values(rows: Sequence[Row]) -> list[float]:
    values = [row.score.shown for row in rows if row.score is not None]
    return [value for value in values if value is not None]


def _number(value: float, is_share: bool, sign: str = "") -> str:
    return f"{value * 100:{sign}.1f}" if is_share else f"{value:{sign}.3g}"


def _half_interval(values: Sequence[float]) -> float:
    """Half the interval of a mean (Student's t)."""
    return half_width(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def _difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Difference of two means and half its interval (Welch 1947)."""
    parts = [statistics.variance(v) / len(v) for v in (values, reference)]
    difference = statistics.mean(values) - statistics.mean(reference)
    if not sum(parts):
        return difference, 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(parts, (values, reference), strict=True)
    )
    return difference, half_width(freedom) * math.sqrt(sum(parts))
