"""Two runs, row by row: what became slower, less accurate, larger; and what was changed between
them.

A comparison makes many tests at a time, so its intervals are simultaneous (Bonferroni 1936): all of
them hold together in 95 of 100 comparisons. Rounds of different runs are not pairs, and a machine
may be slower for the length of a run, which no interval of that run shows. So, where a place has
many rows, a row is judged against what its rows have in common, round by round, since they are
interleaved; otherwise by how far single rounds are apart, not by how well their mean is known. A
change must also be larger than what two runs of the same file differ by: 2 % in time, 0.5 % in
instructions. Times of an unstable row are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgesparse.measure.results import Results
from edgesparse.measure.rows import PAYS_FROM, Interval, Row, Score

EXACT_FROM = 1.005
"""From this ratio on, a clock that counts instructions tells two files apart: what differs from run
to run is how many timer interrupts fall into an inference."""
SHARED_FROM = 1.15
"""From this ratio on, what all rows of a place have in common is a change of what they share, such
as a runtime; below, it may be the machine's."""
MANY_ROWS = 5
"""From so many rows on, what they have in common is known well."""
_LEVEL = 0.05
_Z95 = 1.96

Key = tuple[str, str]
Logs = npt.NDArray[np.float64]
Pairs = Mapping[Key, tuple[Row, Row]]


@dataclass(frozen=True)
class Change:
    """A row that both runs have. `slowdown` is after's p50 by before's; `slowdown_ci95` is its
    interval, simultaneous with those of the other rows, None where times are not judged; `lost` is
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
    def unstable(self) -> bool:
        """Whether its rounds did not agree in one of the runs, so that times are not judged."""
        return any("unstable" in note for row in (self.before, self.after) for note in row.notes)

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
    shared: Mapping[str, float] = field(default_factory=dict)
    """By place, the slowdown that its rows have in common, where it has many of them."""

    @property
    def regressed(self) -> bool:
        return any(change.regressed for change in self.changes)


@dataclass(frozen=True)
class _Shared:
    """What the rows of a place have in common: the drift of each run, by round, and the shift from
    one run to the other (logarithms); `margin` is how far the shift may be off."""

    shift: float
    before: Sequence[float]
    after: Sequence[float]
    margin: float

    @property
    def real(self) -> bool:
        return abs(self.shift) >= max(math.log(SHARED_FROM), self.margin)


def compare_runs(before: Results, after: Results) -> Comparison:
    """Compare every row that both runs have: device, runtime, threads and variant.

    Times are judged by simultaneous intervals, metrics too; an unstable row's times are not.
    """
    first, second = _rows(before), _rows(after)
    pairs = {key: (first[key], second[key]) for key in second if key in first}
    tests = sum(_comparable(*pair) for pair in pairs.values())
    tests += sum(_lost(*pair) is not None for pair in pairs.values())
    places = dict.fromkeys(place for place, _ in pairs)
    shared = {place: _shared(pairs, place, tests) for place in places}
    return Comparison(
        before.run,
        after.run,
        tuple(_change(key, *pair, shared[key[0]], tests) for key, pair in pairs.items()),
        tuple(" ".join(key) for key in first if key not in second),
        tuple(" ".join(key) for key in second if key not in first),
        tuple(differences(before, after)),
        {place: math.exp(common.shift) for place, common in shared.items() if common is not None},
    )


def _rows(results: Results) -> dict[Key, Row]:
    return {(place_of(row), row.variant): row for row in results.rows}


def place_of(row: Row) -> str:
    """Where a row was measured; a runtime's version may change."""
    threads = f", {row.threads} threads" if row.threads > 1 else ""
    return f"{row.device}, {row.runtime.name}{threads}"


def _change(key: Key, before: Row, after: Row, shared: _Shared | None, tests: int) -> Change:
    if before.status != "ok" or after.status != "ok":
        return Change(*key, before, after)
    slowdown, half = _slowdown(before, after), _half(before, after, shared, tests)
    own = 0.0 if slowdown is None else slowdown - (shared.shift if shared else 0.0)
    limit = math.log(_limit(before, after))

    def moved(way: int) -> bool:
        if slowdown is None or half is None or way * slowdown < limit:
            return False
        # What is shared counts only where it is more than a machine does.
        common = shared is not None and shared.real and way * shared.shift > 0
        return way * own >= max(limit, half) or common

    lost = _lost(before, after)
    apart = lost is not None and abs(lost) > _lost_half(before.score, after.score, tests)
    return Change(
        *key,
        before,
        after,
        None if slowdown is None else math.exp(slowdown),
        None if slowdown is None or half is None
        else (math.exp(slowdown - half), math.exp(slowdown + half)),
        lost,
        slower=moved(1),
        faster=moved(-1),
        worse=apart and (lost or 0) > 0,
        better=apart and (lost or 0) < 0,
    )  # fmt: skip


def _limit(before: Row, after: Row) -> float:
    return EXACT_FROM if before.clock == after.clock == "instructions" else PAYS_FROM


def _slowdown(before: Row, after: Row) -> float | None:
    """The logarithm of after's p50 by before's; None where they cannot be compared."""
    one, two = before.latency_ms, after.latency_ms
    if one is None or two is None or before.clock != after.clock or not (one.p50 and two.p50):
        return None
    return math.log(two.p50 / one.p50)


def _comparable(before: Row, after: Row) -> bool:
    unstable = Change("", "", before, after).unstable
    ok = before.status == after.status == "ok"
    return ok and not unstable and _slowdown(before, after) is not None


def _half(before: Row, after: Row, shared: _Shared | None, tests: int) -> float | None:
    """Half the interval of a slowdown's logarithm; None where times are not judged."""
    one, two = before.latency_ms, after.latency_ms
    if one is None or two is None or not _comparable(before, after):
        return None
    if before.clock == "instructions" or not (one.by_round and two.by_round):
        # No drift; or a run that did not keep its rounds.
        errors = [math.log(max(ci[1], 1e-12) / max(ci[0], 1e-12)) / (2 * _Z95)
                  for ci in (one.ci95, two.ci95)]  # fmt: skip
        return _quantile(tests, math.inf) * math.hypot(*errors)
    logs = _logs(before), _logs(after)
    if shared is None:
        return _margin(logs[0], logs[1], tests, averaged=False)
    rest = logs[0] - np.asarray(shared.before), logs[1] - np.asarray(shared.after)
    return _margin(rest[0], rest[1], tests, averaged=True)


def _logs(row: Row) -> Logs:
    """The logarithms of the rounds' medians."""
    assert row.latency_ms is not None
    logs: Logs = np.log(np.maximum(row.latency_ms.by_round, 1e-12))
    return logs


def _margin(one: Logs, two: Logs, tests: int, *, averaged: bool) -> float | None:
    """Half an interval of the difference of two runs (Welch 1947); None of single rounds.

    Args:
        averaged: whether rounds are independent, so that their mean is known better than each.
    """
    if min(len(one), len(two)) < 2:
        return None
    parts = [float(np.var(v, ddof=1)) / (len(v) if averaged else 1) for v in (one, two)]
    total = sum(parts)
    if not total:
        return 0.0
    freedom = total**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (one, two), strict=True))
    return _quantile(tests, freedom) * math.sqrt(total)


@lru_cache(maxsize=1024)
def _quantile(tests: int, freedom: float) -> float:
    """How many standard errors make an interval that holds together with all the others."""
    from scipy.stats import t  # With scikit-learn; half a second, for those who need it.

    return float(t.ppf(1 - _LEVEL / (2 * max(tests, 1)), freedom))


def _shared(pairs: Pairs, place: str, tests: int) -> _Shared | None:
    """What a place's rows have in common; None where they are few, or their rounds not alike."""
    own = [pair for key, pair in pairs.items() if key[0] == place and _comparable(*pair)]
    own = [pair for pair in own if all(row.clock == "wall" for row in pair)]
    if len(own) < MANY_ROWS:
        return None
    runs = []
    for side in (0, 1):
        logs = [_logs(pair[side]) for pair in own]
        if len({len(values) for values in logs}) > 1 or len(logs[0]) < 2:
            return None
        runs.append(np.stack(logs))
    shift = float(np.median([_slowdown(*pair) or 0.0 for pair in own]))
    drifts = [np.median(run - run.mean(axis=1, keepdims=True), axis=0) for run in runs]
    margin = _margin(drifts[0], drifts[1], tests, averaged=False)
    return _Shared(shift, list(drifts[0]), list(drifts[1]), margin or 0.0)


def _lost(before: Row, after: Row) -> float | None:
    """What is lost of the metric; None where it cannot be compared."""
    one, two = before.score, after.score
    if one is None or two is None or one.name != two.name or before.status != after.status:
        return None
    if one.shown is None or two.shown is None:
        return None
    return two.sign * (one.shown - two.shown)


def _lost_half(before: Score | None, after: Score | None, tests: int) -> float:
    """Half its interval: the two runs may have judged the same samples, but nobody knows which
    answers changed."""
    halves = [
        (ci[1] - ci[0]) / 2 if (score is not None and (ci := score.ci95)) else 0.0
        for score in (before, after)
    ]
    return math.hypot(*halves) * _quantile(tests, math.inf) / _Z95


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
