"""Inspection of a .tflite file in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from edgesparse.report.console import shown
from edgesparse.report.table import percent_text, size_text
from edgesparse.spec.safe.text import listed
from edgesparse.tflite.format.graph import label
from edgesparse.tflite.format.signature import explain_custom

if TYPE_CHECKING:
    from edgesparse.commands.inspect import Inspection
    from edgesparse.tflite.features import Features
    from edgesparse.tflite.format.signature import Signature, TensorSpec
    from edgesparse.tflite.runtimes.explain import Explanation, TensorInfo

_OPS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "dense",
    "TRANSPOSE_CONV": "transpose",
}
_COLUMNS = (
    "layer",
    "op",
    "shape",
    "type",
    "zeros %",
    "pattern",
    "stored",
    "size",
    "dense",
    "bound",
)
_LEFT = ("layer", "op", "type", "pattern", "stored")
NAMED_LAYERS = 3
"""Layers that are named in a line about several."""
NOTICED = 0.01
"""Smallest share of zeros between operators that is shown."""


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print every weight; then, for each runtime, which zeros pay and why the others do not."""
    info, tensors = inspection.info, inspection.tensors
    console.print(
        shown(
            f"{inspection.file}: {size_text(info.bytes)} ({size_text(info.bytes_gzip)} with gzip), "
            f"{info.parameters:,} parameters, {percent_text(info.sparsity)} % zeros, stored "
            f"{info.storage}",
            style="bold",
        )
    )
    for line in _signature_lines(inspection.signature):
        console.print(shown(line))
    if info.half_precision:
        console.print(shown("computed in half precision where the CPU supports it"))
    if not tensors:
        console.print("no weights are visible in the file")
        return
    console.print(_table(tensors))
    stored = sum(tensor.stored_bytes for tensor in tensors)
    bound = sum(tensor.entropy_bytes for tensor in tensors)
    console.print(
        shown(
            f"weights: {size_text(stored)}, {stored / max(1, bound):.2f}x the bound (entropy of "
            "the zeros' positions and of the other values)"
        )
    )
    for runtime, explanations in inspection.explained.items():
        console.print()
        console.print(shown(runtime, style="bold cyan"))
        if runtime in inspection.half_precision:
            why = inspection.half_precision[runtime]
            text = f"no speed-up: half precision: {why}" if why else "half precision pays"
            console.print(shown(text, style="yellow" if why else "green"))
        for line, style in lines(explanations):
            console.print(shown(line, style=style))
    if inspection.activations is not None:
        _print_activations(inspection.activations, console)
    for features in inspection.features or ():
        _print_attribution(features, inspection.strongest(features), console)


def _print_activations(zeros: Mapping[str, float], console: Console) -> None:
    console.print(shown("zeros between operators, over the samples:", style="bold"))
    noticeable = {name: share for name, share in zeros.items() if share >= NOTICED}
    for name, share in noticeable.items():
        console.print(shown(f"  {percent_text(share):>5} %  {label(name)}"))
    if not noticeable:
        console.print(shown("  none"))


def _print_attribution(
    features: Features, strongest: Mapping[str, Sequence[tuple[str, float]]], console: Console
) -> None:
    connected, count = int(features.reach.sum()), len(features.reach)
    if not features.followed:
        text = f"{features.name}: paths of weights are unknown; all {count:,} values may matter"
        console.print(shown(text, style="yellow"))
        return
    text = f"{features.name}: {connected:,} of {count:,} values reach the outputs"
    console.print(shown(f"{text} ({connected / count:.1%})", style="bold"))
    for name, weights in strongest.items():
        values = ", ".join(f"{value} ({weight:+.2g})" for value, weight in weights)
        console.print(shown(f"  {name}: {values}"))


def _signature_lines(signature: Signature) -> list[str]:
    """Lines about inputs, outputs and operators."""
    sides = (("input", signature.inputs), ("output", signature.outputs))
    lines = [f"{side}{'s' * (len(e) > 1)}: {', '.join(map(_tensor_line, e))}" for side, e in sides]
    lines.append(
        "operators: " + ", ".join(f"{n} {kind}" for kind, n in signature.operators.items())
    )
    custom = explain_custom(signature.custom)
    return [*lines, custom] if custom else lines


def _tensor_line(spec: TensorSpec) -> str:
    sizes = "x".join("?" if size < 1 else str(size) for size in spec.shape)
    return f"{spec.name} {sizes} {spec.dtype}" + (" (dynamic)" if spec.is_dynamic else "")


def _table(tensors: Sequence[TensorInfo]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for title in _COLUMNS:
        left = title in _LEFT
        table.add_column(
            title,
            justify="left" if left else "right",
            no_wrap=title != "layer",
            overflow="fold" if left else "ellipsis",
        )
    for tensor in tensors:
        table.add_row(
            shown(tensor.name),
            _OPS.get(tensor.op, tensor.op.lower())[:12],
            "x".join(map(str, tensor.shape)),
            shown(tensor.dtype.replace("float", "f")),
            percent_text(tensor.zeros / max(1, tensor.size)),
            tensor.pattern,
            tensor.form,
            size_text(tensor.stored_bytes),
            size_text(tensor.dense_bytes),
            size_text(tensor.entropy_bytes),
        )
    return table


def lines(explanations: Sequence[Explanation]) -> list[tuple[str, str]]:
    """Lines with their styles, one for each verdict and reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for explanation in explanations:
        verdict = (
            "pays"
            if explanation.exploited
            else "no speed-up"
            if explanation.accepted
            else "REFUSED"
        )
        style = (
            "green" if explanation.exploited else "yellow" if explanation.accepted else "bold red"
        )
        groups.setdefault((verdict, explanation.reason, style), []).append(explanation.name)
    order = {"pays": 0, "no speed-up": 1, "REFUSED": 2}
    return [
        (f"{verdict}: {listed(names, NAMED_LAYERS)}: {reason}", style)
        for (verdict, reason, style), names in sorted(groups.items(), key=lambda g: order[g[0][0]])
    ]
