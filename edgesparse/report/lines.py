"""What is said under the tables: the best of each device, releases, gates."""

from __future__ import annotations

from edgesparse.measure.clock import formats_apart
from edgesparse.measure.results import ReleaseInfo, Results
from edgesparse.measure.rows import GateResult, Row
from edgesparse.measure.selection import best_row, recommended
from edgesparse.report.table import DASH, ms_text, size_text


def summary(results: Results) -> list[str]:
    """The best variant of each device, where there are several devices; and what to take where a
    point of the metric may be lost."""
    lines = []
    for device in results.devices:
        rows = [row for row in results.rows if row.device == device.name]
        if len(results.devices) > 1:
            best = best_row(rows, results.gates)
            told = _told(best) if best else "none ran and met its gates"
            lines.append(f"best on {device.name}: {told}")
        found = recommended(rows) if len(rows) > 1 else None
        if found is not None:
            same = found.fastest is found.smallest
            told = f"fastest {'and smallest ' * same}{_told(found.fastest)}"
            told += "" if same else f"; smallest {_told(found.smallest)}"
            apart = formats_apart(rows, device.cpu)
            told += f" ({apart})" if apart else ""
            lines.append(f"recommended on {device.name}, with at most a point lost: {told}")
    return lines


def _told(row: Row) -> str:
    unit = "ms of instructions" if row.clock == "instructions" else "ms"
    size = f", {size_text(row.model.bytes)}" if row.model else ""
    p50 = ms_text(row.latency_ms.p50) if row.latency_ms else DASH
    return f"{row.variant} with {row.runtime.name}, p50 {p50} {unit}{size}"


def release_line(release: ReleaseInfo) -> str:
    earlier = f", before it {release.previous}" if release.previous else ""
    then = (
        f"try it there: {release.run_command}"
        if release.run_command
        else "gone with the emulated device, which is shut down"
    )
    then += f"; {release.warning}" if release.warning else ""
    sent = f", {size_text(release.transfer_bytes)} to send" if release.transfer_bytes else ""
    return (
        f"released on {release.device}: {release.pipeline} {release.digest} "
        f"({release.variant}, {release.runtime}{sent}){earlier}; {then}"
    )


def gate_line(gate: GateResult) -> str:
    limits = [] if gate.min is None else [f"at least {gate.min:g}"]
    limits += [] if gate.max is None else [f"at most {gate.max:g}"]
    value = "no value" if gate.value is None else f"{gate.value:.4g}"
    return (
        f"gate {'met' if gate.passed else 'NOT MET'}: {gate.variant} {gate.metric} {value} "
        f"({' and '.join(limits)}) on {gate.device}, {gate.runtime}"
        + (f": {gate.warning}" if gate.warning else "")
    )
