"""Comparison of two runs, row by row: slower, less accurate or larger; and their differences.

A comparison makes many tests at a time, so its intervals are simultaneous (Bonferroni 1936): all of
them hold together in 95 of 100 comparisons. Rounds of different runs are not pairs, and a machine
can be slower for the length of a run, which no interval of that run shows. So, where a placement
(device, runtime, threads) has many rows, a row is compared with what they have in common, round by
round, since they are interleaved; otherwise by the spread of single rounds, not by that of their
mean. A change must also be larger than what two runs of the same file differ by: 2 % in time, 0.5 %
in instructions. Times of an unstable row are not compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgesparse.measure.results import Results
from edgesparse.measure.rows import PAYS_FROM, Interval, Row, Score
from edgesparse.measure.statistics import half_width

EXACT_FROM = 1.005
"""Smallest ratio that counts for instructions: runs of one file differ by the timer interrupts that
fall into an inference."""
SHARED_FROM = 1.15
"""Smallest shift of all rows of a placement that counts as a change of what they share, such as a
runtime; a smaller one can be the machine's."""
MANY_ROWS = 5
"""Smallest number of rows whose common shift is well determined."""
_Z95 = 1.96

Key = tuple[str, str]
Logs = npt.NDArray[np.float64]
Pairs = Mapping[Key, tuple[Row, Row]]


@dataclass(frozen=True)
class Change:
    """A row that both runs have.

    `slowdown` is the ratio of p50, after by before; `slowdown_ci95` its interval, simultaneous with
    those of the other rows, None where times are not compared; `drop` is the loss of the metric,
    positive where it is worse.
    """

    placement: str
    variant: str
    before: Row
    after: Row
    slowdown: float | None = None
    slowdown_ci95: Interval | None = None
    drop: float | None = None
    slower: bool = False
    faster: bool = False
    worse: bool = False
    better: bool = False

    @property
    def broken(self) -> bool:
        """True where the row worked before and fails now."""
        return self.before.status == "ok" and self.after.status == "failed"

    @property
    def unstable(self) -> bool:
        """True where rounds disagreed in one of the runs, so that times are not compared."""
        return any("unstable" in note for row in (self.before, self.after) for note in row.notes)

    @property
    def regressed(self) -> bool:
        """True where the row is slower, worse or broken."""
        return self.slower or self.worse or self.broken


@dataclass(frozen=True)
class Comparison:
    """Changes of rows, and rows (placement and variant) that only one of the runs has."""

    before: str
    after: str
    changes: tuple[Change, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    differences: tuple[str, ...]
    """Differences between the runs besides their measurements."""
    shared: Mapping[str, float] = field(default_factory=dict)
    """By placement with many rows, the slowdown that its rows have in common."""
    started: tuple[str, str] = ("", "")
    """When the runs started: UTC, ISO 8601."""
    commits: tuple[str, str] = ("", "")
    """The project's git commits, with a plus where files had changed since."""

    @property
    def regressed(self) -> bool:
        """True where a row regressed."""
        return any(change.regressed for change in self.changes)


@dataclass(frozen=True)
class _Shared:
    """Common part of a placement's rows, as logarithms: the drift of each run by round, and the
    shift between the runs with its `margin`."""

    shift: float
    before: Sequence[float]
    after: Sequence[float]
    margin: float

    @property
    def real(self) -> bool:
        return abs(self.shift) >= max(math.log(SHARED_FROM), self.margin)


def compare_runs(before: Results, after: Results) -> Comparison:
    """Compare every row that both runs have: device, runtime, threads and variant.

    Times and metrics are compared by simultaneous intervals; times of unstable rows are not.
    """
    first, second = keyed_rows(before, after)
    pairs = {key: (first[key], second[key]) for key in second if key in first}
    tests = sum(_comparable(*pair) for pair in pairs.values())
    tests += sum(_drop(*pair) is not None for pair in pairs.values())
    placements = dict.fromkeys(placement for placement, _ in pairs)
    shared = {placement: _shared(pairs, placement, tests) for placement in placements}
    return Comparison(
        before.run,
        after.run,
        tuple(_change(key, *pair, shared[key[0]], tests) for key, pair in pairs.items()),
        tuple(" ".join(key) for key in first if key not in second),
        tuple(" ".join(key) for key in second if key not in first),
        tuple(differences(before, after)),
        {
            placement: math.exp(common.shift)
            for placement, common in shared.items()
            if common is not None
        },
        (before.started, after.started),
        (before.commit, after.commit),
    )


def keyed_rows(*runs: Results) -> list[dict[Key, Row]]:
    """Rows by placement and variant; by delegate as well where a run has several of them. A row
    that another delegate runs than before is compared."""
    counts = [Counter((placement_of(row), row.variant) for row in run.rows) for run in runs]

    def key(row: Row) -> Key:
        placement = placement_of(row)
        several = any(count[placement, row.variant] > 1 for count in counts)
        return f"{placement}, {row.delegate}" if several else placement, row.variant

    return [{key(row): row for row in run.rows} for run in runs]


def placement_of(row: Row) -> str:
    """Device, runtime and threads of a row; the runtime's version can differ."""
    threads = f", {row.threads} threads" if row.threads > 1 else ""
    return f"{row.device}, {row.runtime.name}{threads}"


def _change(key: Key, before: Row, after: Row, shared: _Shared | None, tests: int) -> Change:
    if before.status != "ok" or after.status != "ok":
        return Change(*key, before, after)
    slowdown, margin = _slowdown(before, after), _half(before, after, shared, tests)
    relative = 0.0 if slowdown is None else slowdown - (shared.shift if shared else 0.0)
    limit = math.log(_limit(before, after))

    def moved(way: int) -> bool:
        if slowdown is None or margin is None or way * slowdown < limit:
            return False
        # A common shift counts only where it is larger than a machine's.
        shifted = shared is not None and shared.real and way * shared.shift > 0
        return way * relative >= max(limit, margin) or shifted

    drop = _drop(before, after)
    apart = drop is not None and abs(drop) > _drop_half(before.score, after.score, tests)
    return Change(
        *key,
        before,
        after,
        None if slowdown is None else math.exp(slowdown),
        None if slowdown is None or margin is None
        else (math.exp(slowdown - margin), math.exp(slowdown + margin)),
        drop,
        slower=moved(1),
        faster=moved(-1),
        worse=apart and (drop or 0) > 0,
        better=apart and (drop or 0) < 0,
    )  # fmt: skip


def _limit(before: Row, after: Row) -> float:
    return EXACT_FROM if before.clock == after.clock == "instructions" else PAYS_FROM


def _slowdown(before: Row, after: Row) -> float | None:
    """Logarithm of the ratio of p50, after by before; None where they are not comparable."""
    first, second = before.latency_ms, after.latency_ms
    if (
        first is None
        or second is None
        or before.clock != after.clock
        or not (first.p50 and second.p50)
    ):
        return None
    return math.log(second.p50 / first.p50)


def _comparable(before: Row, after: Row) -> bool:
    unstable = Change("", "", before, after).unstable
    ok = before.status == after.status == "ok"
    return ok and not unstable and _slowdown(before, after) is not None


def _half(before: Row, after: Row, shared: _Shared | None, tests: int) -> float | None:
    """Half-width of the interval of a slowdown's logarithm; None where times are not compared."""
    first, second = before.latency_ms, after.latency_ms
    if first is None or second is None or not _comparable(before, after):
        return None
    if before.clock == "instructions" or not (first.by_round and second.by_round):
        # No drift.
        errors = [math.log(max(ci[1], 1e-12) / max(ci[0], 1e-12)) / (2 * _Z95)
                  for ci in (first.ci95, second.ci95)]  # fmt: skip
        return half_width(math.inf, tests) * math.hypot(*errors)
    logs = _logs(before), _logs(after)
    if shared is None:
        return _margin(logs[0], logs[1], tests, averaged=False)
    rest = logs[0] - np.asarray(shared.before), logs[1] - np.asarray(shared.after)
    return _margin(rest[0], rest[1], tests, averaged=True)


def _logs(row: Row) -> Logs:
    """Logarithms of the rounds' medians."""
    assert row.latency_ms is not None
    logs: Logs = np.log(np.maximum(row.latency_ms.by_round, 1e-12))
    return logs


def _margin(first: Logs, second: Logs, tests: int, *, averaged: bool) -> float | None:
    """Half-width of the interval of a difference of two runs (Welch 1947); None for single rounds.

    Args:
        averaged: whether rounds are independent, so that their mean has a smaller error.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [float(np.var(v, ddof=1)) / (len(v) if averaged else 1) for v in (first, second)]
    total = sum(parts)
    if not total:
        return 0.0
    freedom = total**2 / sum(
        p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True)
    )
    return half_width(freedom, tests) * math.sqrt(total)


def _shared(pairs: Pairs, placement: str, tests: int) -> _Shared | None:
    """Common part of a placement's rows; None for few rows, or different numbers of rounds."""
    comparable = [pair for key, pair in pairs.items() if key[0] == placement and _comparable(*pair)]
    comparable = [pair for pair in comparable if all(row.clock == "wall" for row in pair)]
    if len(comparable) < MANY_ROWS:
        return None
    runs = []
    for side in (0, 1):
        logs = [_logs(pair[side]) for pair in comparable]
        if len({len(values) for values in logs}) > 1 or len(logs[0]) < 2:
            return None
        runs.append(np.stack(logs))
    shift = float(np.median([_slowdown(*pair) or 0.0 for pair in comparable]))
    drifts = [np.median(run - run.mean(axis=1, keepdims=True), axis=0) for run in runs]
    margin = _margin(drifts[0], drifts[1], tests, averaged=False)
    return _Shared(shift, list(drifts[0]), list(drifts[1]), margin or 0.0)


def _drop(before: Row, after: Row) -> float | None:
    """Drop of the metric; None where it is not comparable."""
    first, second = before.score, after.score
    if (
        first is None
        or second is None
        or first.name != second.name
        or before.status != after.status
    ):
        return None
    if first.shown is None or second.shown is None:
        return None
    return second.sign * (first.shown - second.shown)


def _drop_half(before: Score | None, after: Score | None, tests: int) -> float:
    """Half-width of the drop's interval, unpaired: outputs by sample are not stored."""
    halves = [
        (ci[1] - ci[0]) / 2 if (score is not None and (ci := score.ci95)) else 0.0
        for score in (before, after)
    ]
    return math.hypot(*halves) * half_width(math.inf, tests) / _Z95


def differences(before: Results, after: Results) -> Iterator[str]:
    """Differences between two runs besides their measurements."""
    if before.pipeline != after.pipeline:
        yield f"pipeline: {before.pipeline} -> {after.pipeline}"
    elif before.pipeline_digest != after.pipeline_digest:
        yield "the pipeline file"
    if before.commit != after.commit:
        yield f"commit: {_short(before.commit)} -> {_short(after.commit)}"
    for name in dict.fromkeys([*before.versions, *after.versions]):
        first, second = before.versions.get(name), after.versions.get(name)
        if first != second:
            yield f"{name}: {first or 'none'} -> {second or 'none'}"
    machines = {device.name: device for device in before.devices}
    for device in after.devices:
        earlier = machines.get(device.name)
        if earlier and (earlier.cpu, earlier.machine) != (device.cpu, device.machine):
            machine = f"{device.machine}, {device.cpu}"
            yield f"{device.name}: {earlier.machine}, {earlier.cpu} -> {machine}"
    if before.quick != after.quick:
        yield "a single run is quick"
    runtimes = {(r.device, r.runtime.name): r.runtime.version for r in before.rows}
    for row in after.rows:
        version = runtimes.pop((row.device, row.runtime.name), row.runtime.version)
        if version != row.runtime.version:
            yield f"{row.device}: {row.runtime.name} {version} -> {row.runtime.version}"

    rows_before, rows_after = keyed_rows(before, after)
    for key, row in rows_after.items():
        delegate = rows_before.get(key, row).delegate
        if delegate != row.delegate:
            yield f"{row.variant} on {key[0]}: delegate {delegate} -> {row.delegate}"


def _short(commit: str) -> str:
    """Abbreviated commit, with its plus."""
    return commit[:12] + "+" * commit.endswith("+") if commit else "none"
