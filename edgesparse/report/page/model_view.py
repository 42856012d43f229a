"""The model view of a page: the layers of a file in order, their zeros and storage, what runs them,
and why zeros do not pay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgesparse.delegate.choice import MIN_ZEROS
from edgesparse.measure.results import Results
from edgesparse.measure.rows import PAYS_FROM, Layer, Row
from edgesparse.measure.training_details import LayerSparsity
from edgesparse.report.table import placement_label
from edgesparse.report.units import (
    count_text,
    ms_text,
    percent_text,
    size_text,
    speed_text,
    time_unit,
)

MAX_VIEWS = 40
"""Largest number of files with a table of their layers."""
FEW_ZEROS = 0.05
"""Share of zeros below which no reason is needed why they do not pay."""
REPORTED_DIFFERENCE = 0.01
"""Smallest difference of target and achieved sparsity that is reported for a layer."""


@dataclass(frozen=True)
class Bar:
    """A share as a bar, with a mark at the target, if there is one."""

    text: str
    share: float
    target: float | None = None


@dataclass(frozen=True)
class LayerLine:
    """A layer as the page shows it; `pays` is None where it has too few zeros to ask."""

    name: str
    operator: str
    weights: str
    zeros: Bar | None
    work: Bar | None
    time: Bar | None
    storage: str
    runs_by: str
    pays: bool | None
    reason: str


@dataclass(frozen=True)
class ModelView:
    """The layers of a row's file."""

    title: str
    is_shipped: bool
    has_times: bool
    time_unit: str
    lines: list[LayerLine]


def model_views(results: Results, shipped: Mapping[str, Row | None]) -> list[ModelView]:
    """Describe the layers of each measured file, those of shipped rows first.

    Args:
        shipped: by device the row to ship.
    """
    ship = [row for row in shipped.values() if row is not None]
    rows = [row for row in results.rows if row.status == "ok" and row.layers]
    rows.sort(key=lambda row: not any(row is other for other in ship))
    return [
        ModelView(
            f"{row.variant} ({placement_label(row, results)}){_measured(row)}",
            any(row is other for other in ship),
            any(layer.time_ms is not None for layer in row.layers),
            time_unit(row.clock),
            list(_lines(row, results)),
        )
        for row in rows[:MAX_VIEWS]
    ]


def _measured(row: Row) -> str:
    """Format the speed-up over the dense counterpart as a suffix."""
    speedup = row.speedup_vs_dense
    return f": {speed_text(speedup.ratio)} vs {speedup.baseline}" if speedup else ""


def _lines(row: Row, results: Results) -> Iterator[LayerLine]:
    pruned = {layer.name: layer for layer in results.provenance.layers.get(row.variant, ())}
    total = sum(layer.macs or 0 for layer in row.layers)
    longest = max(layer.time_ms or 0.0 for layer in row.layers)
    dense_name, dense = _dense_layers(row, results)
    for layer in row.layers:
        # What only decodes weights is part of the layer that reads them.
        if layer.operator == "DENSIFY" or layer.storage == "decoder":
            continue
        share = layer.zeros / layer.weights if layer.weights else 0.0
        pays, reason = (None, "") if share < FEW_ZEROS else _pays(layer, row, results)
        if pays is not None and (gain := _gain(layer, dense)):
            pays, reason = gain >= PAYS_FROM, f"{speed_text(gain)} vs {dense_name}; {reason}"
        work = (layer.macs or 0) / total if total else 0.0
        yield LayerLine(
            layer.name,
            layer.operator,
            f"{layer.weights:,}" if layer.weights else "",
            _zeros(share, pruned.get(layer.name)) if layer.weights else None,
            Bar(count_text(layer.macs), work) if layer.macs else None,
            Bar(ms_text(layer.time_ms), layer.time_ms / longest) if layer.time_ms else None,
            _storage(layer),
            _runs_by(layer, row),
            pays,
            reason or _why_dense(layer, row, pruned.get(layer.name)),
        )


def _dense_layers(row: Row, results: Results) -> tuple[str, dict[tuple[str, str], Layer]]:
    """Return the name and layers of the file that a row's layers are compared with, measured on the
    same device, runtime and number of threads."""
    speedup = row.speedup_vs_dense or row.speedup
    for other in results.rows:
        same = (other.device, other.runtime, other.threads) == (
            row.device, row.runtime, row.threads
        )  # fmt: skip
        if speedup is not None and same and other.variant == speedup.baseline:
            return other.variant, {(layer.name, layer.operator): layer for layer in other.layers}
    return "", {}


def _gain(layer: Layer, dense: Mapping[tuple[str, str], Layer]) -> float | None:
    """Return the speed-up of a layer over the dense one of the same size; None where either was not
    measured."""
    other = dense.get((layer.name, layer.operator))
    if other is None or not (layer.time_ms and other.time_ms) or other.zeros >= layer.zeros:
        return None
    return other.time_ms / layer.time_ms if layer.dense_bytes == other.dense_bytes else None


def _zeros(share: float, pruned: LayerSparsity | None) -> Bar:
    text = f"{percent_text(share)} %"
    if pruned is None or pruned.pattern == "channels" or not pruned.target:
        return Bar(text, share)
    if abs(pruned.target - share) > REPORTED_DIFFERENCE:
        text += f" of {pruned.target:.0%}"
    return Bar(text, share, pruned.target)


def _storage(layer: Layer) -> str:
    if not layer.weights:
        return ""
    if layer.stored_bytes == layer.dense_bytes:
        return f"{layer.storage}, {size_text(layer.stored_bytes)}"
    return f"{layer.storage}, {size_text(layer.dense_bytes)} → {size_text(layer.stored_bytes)}"


def _runs_by(layer: Layer, row: Row) -> str:
    """Name the delegate of a layer. XNNPACK does not report what it takes: it is named where it was
    offered the layer."""
    if layer.taken:
        return "edgesparse"
    if row.delegate == "edgesparse":
        return f"xnnpack: {layer.why_left}" if layer.why_left else "xnnpack"
    return row.delegate if row.delegate != "none" else "runtime"


def _pays(layer: Layer, row: Row, results: Results) -> tuple[bool | None, str]:
    """Decide whether a layer's zeros are expected to save time, and why."""
    if layer.taken and layer.zeros < MIN_ZEROS[False] * layer.weights:
        return None, "too few zeros to pay; the delegate runs it for its neighbours"
    if layer.taken and layer.zeros < MIN_ZEROS[True] * layer.weights and _is_x86(row, results):
        return None, "the delegate runs it; on a CPU with AMX it has too few zeros to pay"
    if layer.taken:
        return _pays_measured(row)
    key = layer.name, layer.operator
    stored = next((w for w in row.weights if (w.name, w.operator) == key), None)
    if layer.taken is False:
        return False, layer.why_left
    if stored is not None:
        return stored.exploited, stored.reason
    if row.delegate == "edgetpu":
        return False, "an Edge TPU computes with every weight"
    if layer.storage != "dense":
        return None, f"stored {layer.storage}"
    return False, "stored dense: the runtime does not know of its zeros"


def _is_x86(row: Row, results: Results) -> bool:
    return any(d.name == row.device and d.machine == "x86_64" for d in results.devices)


def _pays_measured(row: Row) -> tuple[bool, str]:
    """Decide for a layer whose blocks of zeros are skipped; its file may be slower nevertheless."""
    skipped, speedup = "the delegate skips blocks of zeros", row.speedup_vs_dense
    if speedup is not None and speedup.ci95[1] < 1:
        return False, f"{skipped}, and the file is slower than {speedup.baseline}"
    return True, skipped


def _why_dense(layer: Layer, row: Row, pruned: LayerSparsity | None) -> str:
    """Give the reason for which a layer was left dense; empty where there is none."""
    if pruned is not None and pruned.note:
        return pruned.note
    left = row.coverage.left_dense if row.coverage else []
    reason = next((kernel.reason for kernel in left if kernel.name == layer.name), "")
    return f"left dense: {reason}" if reason else ""
