"""Two runs, row by row: what became slower, less accurate, larger; and what was changed between
them.

Rounds of different runs are not pairs: what one machine does at two times may differ by more than
either run's interval says. So the interval of a ratio is made of both intervals (the logarithms'
standard errors, added in quadrature), and a change must be larger than what two runs of the same
file differ by: 2 % in time, 0.5 % in instructions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgesparse.bench.results import Results
from edgesparse.bench.rows import PAYS_FROM, Interval, Row, Score

EXACT_FROM = 1.005
"""From this ratio on, a clock that counts instructions tells two files apart: what differs from run
to run is how many timer interrupts fall into an inference."""
UNSTABLE_FROM = 1.1
"""The same of rows whose own rounds did not agree."""
_Z95 = 1.96


@dataclass(frozen=True)
class Change:
    """A row that both runs have. `slowdown` is after's p50 by before's, with its interval; `lost`
    what is lost of the metric, positive where it is worse."""

    place: str
    variant: str
    before: Row
    after: Row
    slowdown: float | None = None
    slowdown_ci95: Interval | None = None
    lost: float | None = None
    slower: bool = False
    faster: bool = False
    worse: bool = False
    better: bool = False

    @property
    def broken(self) -> bool:
        """Whether it worked before and fails now."""
        return self.before.status == "ok" and self.after.status == "failed"

    @property
    def regressed(self) -> bool:
        return self.slower or self.worse or self.broken


@dataclass(frozen=True)
class Comparison:
    """`gone` and `new` are rows, by place and variant, that only one of the runs has."""

    before: str
    after: str
    changes: tuple[Change, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    differences: tuple[str, ...]
    """What was changed between the two."""

    @property
    def regressed(self) -> bool:
        return any(change.regressed for change in self.changes)


def compare_runs(before: Results, after: Results) -> Comparison:
    """Compare every row that both runs have: device, runtime, threads and variant."""
    first, second = _rows(before), _rows(after)
    common = [key for key in second if key in first]
    return Comparison(
        before.run,
        after.run,
        tuple(_change(key, first[key], second[key]) for key in common),
        tuple(" ".join(key) for key in first if key not in second),
        tuple(" ".join(key) for key in second if key not in first),
        tuple(differences(before, after)),
    )


def _rows(results: Results) -> dict[tuple[str, str], Row]:
    return {(place_of(row), row.variant): row for row in results.rows}


def place_of(row: Row) -> str:
    """Where a row was measured; a runtime's version may change."""
    threads = f", {row.threads} threads" if row.threads > 1 else ""
    return f"{row.device}, {row.runtime.name}{threads}"


def _change(key: tuple[str, str], before: Row, after: Row) -> Change:
    change = Change(*key, before, after)
    if before.status != "ok" or after.status != "ok":
        return change
    ratio = _slowdown(before, after)
    lost, apart = _lost(before.score, after.score)
    limit = _limit(before, after)
    value, ci95 = ratio if ratio is not None else (None, None)
    return Change(
        *key,
        before,
        after,
        value,
        ci95,
        lost,
        slower=value is not None and ci95 is not None and ci95[0] > 1 and value >= limit,
        faster=value is not None and ci95 is not None and ci95[1] < 1 and 1 / value >= limit,
        worse=apart and (lost or 0) > 0,
        better=apart and (lost or 0) < 0,
    )


def _limit(before: Row, after: Row) -> float:
    if any("unstable" in note for row in (before, after) for note in row.notes):
        return UNSTABLE_FROM
    return EXACT_FROM if before.clock == after.clock == "instructions" else PAYS_FROM


def _slowdown(before: Row, after: Row) -> tuple[float, Interval] | None:
    one, two = before.latency_ms, after.latency_ms
    if one is None or two is None or before.clock != after.clock or not (one.p50 and two.p50):
        return None
    errors = [math.log(max(ci[1], 1e-12) / max(ci[0], 1e-12)) / (2 * _Z95)
              for ci in (one.ci95, two.ci95)]  # fmt: skip
    middle, half = math.log(two.p50 / one.p50), _Z95 * math.hypot(*errors)
    return math.exp(middle), (math.exp(middle - half), math.exp(middle + half))


def _lost(before: Score | None, after: Score | None) -> tuple[float | None, bool]:
    """What is lost of the metric, and whether that is more than chance: the two runs may have
    judged the same samples, but nobody knows which answers changed."""
    if before is None or after is None or before.name != after.name:
        return None, False
    if before.shown is None or after.shown is None:
        return None, False
    sign = 1 if after.best == "highest" else -1
    lost = sign * (before.shown - after.shown)
    halves = [(ci[1] - ci[0]) / 2 if (ci := score.ci95) else 0.0 for score in (before, after)]
    return lost, abs(lost) > math.hypot(*halves)


def differences(before: Results, after: Results) -> Iterator[str]:
    """What two runs do not have in common, besides what they measured."""
    if before.pipeline != after.pipeline:
        yield f"pipeline: {before.pipeline} -> {after.pipeline}"
    elif before.pipeline_digest != after.pipeline_digest:
        yield "the pipeline's file"
    if before.commit != after.commit:
        yield f"commit: {_short(before.commit)} -> {_short(after.commit)}"
    for name in dict.fromkeys([*before.versions, *after.versions]):
        one, two = before.versions.get(name), after.versions.get(name)
        if one != two:
            yield f"{name}: {one or 'none'} -> {two or 'none'}"
    machines = {device.name: device for device in before.devices}
    for device in after.devices:
        known = machines.get(device.name)
        if known is not None and (known.cpu, known.machine) != (device.cpu, device.machine):
            yield f"{device.name}: {known.machine}, {known.cpu} -> {device.machine}, {device.cpu}"
    if before.quick != after.quick:
        yield "one of them is quick"
    runtimes = {(r.device, r.runtime.name): r.runtime.version for r in before.rows}
    for row in after.rows:
        version = runtimes.pop((row.device, row.runtime.name), row.runtime.version)
        if version != row.runtime.version:
            yield f"{row.device}: {row.runtime.name} {version} -> {row.runtime.version}"


def _short(commit: str) -> str:
    """A commit as people write it, with its plus."""
    return commit[:12] + "+" * commit.endswith("+") if commit else "none"
