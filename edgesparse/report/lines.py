"""Text lines around the tables: devices, advice, releases, gates."""

from __future__ import annotations

from edgesparse.measure.results import ReleaseInfo, Results
from edgesparse.measure.rows import GateResult
from edgesparse.report.units import size_text

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


def advice(results: Results) -> list[str]:
    """Suggest how to make unstable rows stable, once for all of them."""
    if not any("unstable" in note for row in results.rows for note in row.notes):
        return []
    return ["unstable rows: stop other programs, fix the CPU governor or raise benchmark.rounds"]


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
