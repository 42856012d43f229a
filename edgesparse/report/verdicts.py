"""Verdicts under the tables: what to ship, what that gains and costs, and why; and where sparsity
pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgesparse.measure.instruction_counts import incomparable_formats
from edgesparse.measure.results import DeviceInfo, Results
from edgesparse.measure.rows import PAYS_FROM, Row, Speedup
from edgesparse.measure.selection import Selection, clearly_slower, objections, select
from edgesparse.report.table import blocks, placement_label
from edgesparse.report.units import (
    metric_text,
    ms_text,
    percent_text,
    ratio_text,
    size_text,
    speed_interval_text,
    speed_text,
    time_unit,
)

SMALLER_FROM = 1.05
"""Smallest ratio of file sizes that counts as smaller."""
_NAMES = 3
"""Names that a line lists; others are counted."""


@dataclass(frozen=True)
class Verdict:
    """A line of a verdict; `pays` where it is good news."""

    text: str
    pays: bool


@dataclass(frozen=True)
class _Effect:
    """The effect of a variant's sparsity on one runtime, device and number of threads."""

    row: Row
    speedup: Speedup
    smaller: str
    outcome: str
    pays: bool


def verdicts(results: Results) -> list[Verdict]:
    """Compare each sparse variant with its dense counterpart, in time (by interval) and in size: a
    line per variant where its outcome is the same in all blocks, else a line per block."""
    effects: dict[str, list[_Effect]] = {}
    for block in blocks(results):
        rows = {row.variant: row for row in block.rows}
        for row in block.rows:
            if (effect := _effect(row, rows)) is not None:
                effects.setdefault(row.variant, []).append(effect)
    return [verdict for group in effects.values() for verdict in _lines(group, results)]


def _lines(group: Sequence[_Effect], results: Results) -> Iterator[Verdict]:
    first = group[0]
    alike = {(effect.outcome, effect.smaller, effect.speedup.baseline) for effect in group}
    if len(group) > 1 and len(alike) == 1:
        yield Verdict(_text(first.row.variant, _range_text(group, results), first), first.pays)
        return
    for effect in group:
        ratio = effect.speedup.ratio
        speed = f"{speed_text(ratio)} ({speed_interval_text(effect.speedup.ci95, ratio)})"
        # A single block needs no name.
        several = len(group) > 1 or len(results.devices) > 1
        label = f" ({placement_label(effect.row, results)})" if several else ""
        yield Verdict(_text(effect.row.variant + label, speed, effect), effect.pays)


def _range_text(group: Sequence[_Effect], results: Results) -> str:
    """The slowest and the fastest block, or all intervals as one where theirs overlap."""
    slowest, *_, fastest = sorted(group, key=lambda effect: effect.speedup.ratio)
    if slowest.speedup.ci95[1] < fastest.speedup.ci95[0]:
        return " to ".join(
            f"{speed_text(effect.speedup.ratio)} ({placement_label(effect.row, results)})"
            for effect in (slowest, fastest)
        )
    low = min(effect.speedup.ci95[0] for effect in group)
    high = max(effect.speedup.ci95[1] for effect in group)
    return speed_interval_text((low, high), high) + ("x" if high > 0.5 else "x slower")


def _text(subject: str, speed: str, effect: _Effect) -> str:
    return f"{subject}: {speed}{effect.smaller} vs {effect.speedup.baseline}: {effect.outcome}"


def _effect(row: Row, rows: dict[str, Row]) -> _Effect | None:
    speedup = row.speedup_vs_dense
    if row.status != "ok" or speedup is None or row.model is None:
        return None
    dense = rows.get(speedup.baseline)
    ratio = dense.model.bytes / row.model.bytes if dense and dense.model else 1.0
    smaller = f", {ratio:.1f}x smaller" if ratio > SMALLER_FROM else ""
    # As shown: an interval that reads "0.97-1.00x" must not be called a loss.
    low, high = (float(ratio_text(limit)) for limit in speedup.ci95)
    pays = low > 1 and speedup.ratio >= PAYS_FROM
    cause = _cause(row, dense)
    saves = "save" if " and " in cause else "saves"
    if pays and cause == "sparsity" and row.zeros_exploited is False:
        outcome = "faster, but not because of its zeros (this runtime has no sparse kernel for it)"
        pays = False
    elif pays and cause == "half precision" and row.half_precision is False:
        outcome = "faster, but half precision is not confirmed as the cause"
        pays = False
    elif pays:
        outcome = f"{cause} {saves} time"
    elif high < 1:
        outcome = f"slower than {speedup.baseline}"
    elif smaller:
        outcome = f"{cause} {saves} space, not time"
    else:
        outcome = f"no gain from {cause}"
    return _Effect(row, speedup, smaller, outcome, pays)


def _cause(row: Row, dense: Row | None) -> str:
    """Name what distinguishes a variant from its dense counterpart and can save time: of the steps
    that only the variant has, those that have a way to."""
    steps = set(row.steps[len(dense.steps) if dense is not None else 0 :])
    causes = ["channel pruning"] if "channels" in steps else []
    if row.half_precision is False and causes:
        return causes[0]
    if row.half_precision is not None:  # Its zeros are stored dense and have no effect.
        return " and ".join([*causes, "half precision"])
    unstructured = steps - {"activations", "channels", "weight-sharing", "inputs"}
    if unstructured and (row.zeros_exploited or not causes):
        causes.append("sparsity")
    if not causes and "activations" in steps:
        return "activation sparsity"
    if not causes and "inputs" in steps:
        return "input pruning"
    return " and ".join(causes) or ("weight sharing" if steps else "sparsity")


def ship_lines(results: Results) -> list[Verdict]:
    """Describe for each device in three lines what to ship, its gains and costs, and the reason."""
    return [verdict for group in ship_groups(results) for verdict in group]


def ship_groups(results: Results) -> list[list[Verdict]]:
    """Return the lines of `ship_lines` by device.

    Their rows are those that the tables mark and `deploy` releases; see `measure.selection`.
    """
    groups = []
    for device in results.devices:
        rows = [row for row in results.rows if row.device == device.name]
        if len(rows) < 2 or not any(row.latency_ms for row in rows):
            continue  # Nothing to choose from.
        selection = select(rows, results.gates)
        where = f" to {device.name}" if len(results.devices) > 1 else ""
        if selection is None:
            text = f"ship nothing{where}: {_objections(rows, results)}"
            groups.append([Verdict(text, False)])
            continue
        texts = (
            f"ship {_facts(selection.row)}{where}",
            f"gains: {_gains(selection.row, rows, results)}; costs: {_costs(selection.row)}",
            f"why: {_why(selection, rows, results, device)}",
        )
        groups.append([Verdict(text, True) for text in texts])
    return groups


def _facts(row: Row) -> str:
    assert row.latency_ms is not None
    unit = time_unit(row.clock)
    threads = f", {row.threads} threads" if row.threads > 1 else ""
    delegate = f", delegate {row.delegate}" if row.delegate == "edgesparse" else ""
    texts = [f"{ms_text(row.latency_ms.p50)} {unit}"]
    texts += [size_text(row.model.bytes)] if row.model else []
    score = row.score
    if score is not None and score.shown is not None:
        value = f"{metric_text(score.shown, score.unit)} {score.unit}".strip()
        texts.append(f"{score.name} {value}")
    return f"{row.variant} ({row.runtime.name}{delegate}{threads}): {', '.join(texts)}"


def _gains(row: Row, rows: Sequence[Row], results: Results) -> str:
    """Speed-up with its interval, and the ratio of sizes, against the baseline."""
    baseline = row.speedup.baseline if row.speedup else results.baseline
    if row.variant == baseline:
        return "none, it is the baseline"
    texts = []
    if row.speedup is not None:
        interval = speed_interval_text(row.speedup.ci95, row.speedup.ratio)
        low, high = row.speedup.ci95
        word = "" if high < 1 else " faster" if low > 1 else " speed"
        text = speed_text(row.speedup.ratio)
        texts.append(f"{text}{'' if text.endswith('slower') else word} ({interval})")
    dense = next((r for r in rows if r.variant == baseline and r.model), None)
    if dense is not None and dense.model and row.model:
        ratio = dense.model.bytes / row.model.bytes
        if ratio >= SMALLER_FROM:
            texts.append(f"{ratio:.1f}x smaller")
    return f"{', '.join(texts) or 'none'} vs {baseline}"


def _costs(row: Row) -> str:
    """Loss of the metric against the baseline with its interval, or what it gains."""
    score = row.score
    if score is None or score.drop is None:
        return "not known, no metric was compared"
    low, high = score.drop_ci95 or (score.drop, score.drop)
    if low == high == 0:
        return f"no {score.name}"
    is_share, half = score.unit == "%", (high - low) / 2
    drop = abs(score.drop) if high < 0 else score.drop
    text = percent_text(drop) if is_share else f"{drop:.2g}"
    if score.drop_ci95 is not None:
        text += f"±{percent_text(half) if is_share else f'{half:.2g}'}"
    text += " points" if is_share else f" {score.unit} {score.name}".replace("  ", " ")
    if high < 0:
        return f"no {score.name} ({text} better)"
    return text if low > 0 else f"{text} (not significant)"


def _why(selection: Selection, rows: Sequence[Row], results: Results, device: DeviceInfo) -> str:
    """Describe which part of the rule decided, and the faster rows that cannot be shipped."""
    row = selection.row
    equal = [other for other in selection.as_fast if other is not row]
    if not equal:
        text = f"fastest of {len(selection.kept)} rows that keep metric and gates"
        text += _lead(selection)
    else:
        as_good = {id(other) for other in selection.as_good}
        worse = [other for other in equal if id(other) not in as_good]
        larger = [other for other in equal if id(other) in as_good]
        parts = [f"equal in speed to {_names(equal, row)} (not told apart)"]
        parts += [f"loses less than {_names(worse, row)}"] if worse else []
        if larger:
            same = all(r.variant == row.variant for r in larger)
            parts += [] if same else ["smallest of those that lose no less"]
        text = "; ".join(parts)
    faster = [
        other
        for other in rows
        if other.latency_ms is not None
        and objections(other, results.gates)
        and clearly_slower(row, other)
    ]
    for other in faster[:1]:
        reason = " and ".join(objections(other, results.gates))
        text += f"; {_name(other, row)} is faster, but {reason}"
    text += f"; {len(faster) - 1} more alike" if len(faster) > 1 else ""
    limit = incomparable_formats(rows, device.cpu)
    return f"{text}; {limit}" if limit else text


def _lead(selection: Selection) -> str:
    """State how much faster a row is than the next variant, where there is another."""
    row = selection.row
    others = [r for r in selection.kept if r.variant != row.variant and r.latency_ms]
    if not others or row.latency_ms is None:
        return ""
    second = min(others, key=lambda r: r.latency_ms.p50 if r.latency_ms else 0.0)
    assert second.latency_ms is not None
    ratio = second.latency_ms.p50 / row.latency_ms.p50
    return f", {ratio_text(ratio)}x faster than {_name(second, row)}"


def _name(row: Row, reference: Row) -> str:
    """A row's variant, with its runtime, delegate and threads where they differ from the
    reference's."""
    differing = [row.runtime.name] if row.runtime.name != reference.runtime.name else []
    differing += [row.delegate] if row.delegate != reference.delegate else []
    differing += [f"{row.threads} threads"] if row.threads != reference.threads else []
    return f"{row.variant} ({', '.join(differing)})" if differing else row.variant


def _names(rows: Sequence[Row], reference: Row) -> str:
    names = [_name(row, reference) for row in rows]
    rest = [f"{len(names) - _NAMES} others"] if len(names) > _NAMES else []
    names = [*names[:_NAMES], *rest]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _objections(rows: Sequence[Row], results: Results) -> str:
    """Reasons why no row of a device can be shipped, each with its rows."""

    def pairs() -> Iterator[tuple[str, Row]]:
        for row in rows:
            yield " and ".join(objections(row, results.gates)), row

    reasons: dict[str, list[Row]] = {}
    for reason, row in pairs():
        reasons.setdefault(reason, []).append(row)
    return "; ".join(
        f"{', '.join(dict.fromkeys(row.variant for row in group))} {reason}"
        for reason, group in reasons.items()
    )
