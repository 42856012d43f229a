"""Contents of a .tflite file in the terminal: weights, their storage, the inputs in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from edgesparse.report.rich_text import plain_table, print_line, safe_text
from edgesparse.report.units import percent_text, size_text
from edgesparse.spec.safe.text import listed
from edgesparse.tflite.format.flatbuffer import label
from edgesparse.tflite.format.signature import explain_custom

if TYPE_CHECKING:
    from edgesparse.commands.inspect import Inspection
    from edgesparse.tflite.format.signature import Signature, TensorSpec
    from edgesparse.tflite.input_attribution import Features
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
MIN_ACTIVATION_ZEROS = 0.01
"""Smallest share of zeros among an operator's outputs that is listed."""


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print every weight; then, for each runtime, which zeros save time and why others do not."""
    info, tensors = inspection.info, inspection.tensors
    print_line(
        console,
        f"{inspection.file}: {size_text(info.bytes)} ({size_text(info.bytes_gzip)} with gzip), "
        f"{info.parameters:,} parameters, {percent_text(info.sparsity)} % zeros, stored "
        f"{info.storage}",
        "bold",
    )
    for line in _signature_lines(inspection.signature):
        print_line(console, line)
    if info.half_precision:
        print_line(console, "computed in half precision where the CPU can")
    if not tensors:
        print_line(console, "no weights")
        return
    console.print(_table(tensors))
    stored = sum(tensor.stored_bytes for tensor in tensors)
    bound = sum(tensor.entropy_bytes for tensor in tensors)
    print_line(
        console,
        f"weights: {size_text(stored)}, {stored / max(1, bound):.2f}x the bound (entropy of "
        "zero positions and nonzero values)",
    )
    for runtime, explanations in inspection.explained.items():
        console.print()
        print_line(console, runtime, "bold cyan")
        if reason := inspection.half_precision.get(runtime):
            print_line(console, f"no speed-up from half precision: {reason}", "yellow")
        elif runtime in inspection.half_precision:
            print_line(console, "computes in half precision", "green")
        if (ours := inspection.delegated.get(runtime)) is not None:
            gain = f"; expected {ours.ratio:.1f}x as fast as dense int8" * (ours.ratio > 1)
            print_line(console, f"{ours.text}{gain}", "green" if gain else "yellow")
        for line, style in explanation_lines(explanations):
            print_line(console, line, style)
    if inspection.activations is not None:
        _print_activations(inspection.activations, console)
    for features in inspection.features or ():
        _print_attribution(features, inspection.strongest(features), console)


def _print_activations(zeros: Mapping[str, float], console: Console) -> None:
    """Print the share of zeros in the outputs of operators, by tensor."""
    print_line(console, "zeros in operator outputs (share over the samples):", "bold")
    listed_zeros = {n: share for n, share in zeros.items() if share >= MIN_ACTIVATION_ZEROS}
    for name, share in listed_zeros.items():
        print_line(console, f"  {percent_text(share):>5} %  {label(name)}")
    if not listed_zeros:
        print_line(console, "  none")


def _print_attribution(
    features: Features, strongest: Mapping[str, Sequence[tuple[str, float]]], console: Console
) -> None:
    """Print how many values of an input reach the outputs, and the strongest for each output.

    Args:
        strongest: by output, values of the input with their weights.
    """
    connected, count = int(features.reach.sum()), len(features.reach)
    if not features.followed:
        text = (
            f"{features.name}: cannot trace its paths; all {count:,} values count as reaching the "
            "outputs"
        )
        print_line(console, text, "yellow")
        return
    share = f"{connected / count:.1%}"
    text = f"{features.name}: {connected:,} of {count:,} values reach the outputs ({share})"
    print_line(console, text, "bold")
    for name, values in strongest.items():
        weights = ", ".join(f"{value} ({weight:+.2g})" for value, weight in values)
        print_line(console, f"  {name}: {weights}")


def _signature_lines(signature: Signature) -> list[str]:
    """Describe a model's inputs, outputs and operators."""
    sides = (("input", signature.inputs), ("output", signature.outputs))
    lines = [
        f"{side}{'s' * (len(specs) > 1)}: {', '.join(map(_tensor_line, specs))}"
        for side, specs in sides
    ]
    lines.append(
        "operators: " + ", ".join(f"{n} {kind}" for kind, n in signature.operators.items())
    )
    custom = explain_custom(signature.custom)
    return [*lines, custom] if custom else lines


def _tensor_line(spec: TensorSpec) -> str:
    sizes = "x".join("?" if size < 1 else str(size) for size in spec.shape)
    return f"{spec.name} {sizes} {spec.dtype}" + (" (dynamic shape)" if spec.is_dynamic else "")


def _table(tensors: Sequence[TensorInfo]) -> Table:
    table = plain_table()
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
            safe_text(tensor.name),
            _OPS.get(tensor.op, tensor.op.lower())[:12],
            "x".join(map(str, tensor.shape)),
            safe_text(tensor.dtype.replace("float", "f")),
            percent_text(tensor.zeros / max(1, tensor.size)),
            tensor.pattern,
            tensor.form,
            size_text(tensor.stored_bytes),
            size_text(tensor.dense_bytes),
            size_text(tensor.entropy_bytes),
        )
    return table


_OUTCOMES = {
    (True, True): ("saves time", "green"),
    (True, False): ("saves time", "green"),
    (False, True): ("no speed-up", "yellow"),
    (False, False): ("REFUSED", "bold red"),
}
"""By whether a weight's zeros are exploited and its storage accepted: outcome and style."""


def explanation_lines(explanations: Sequence[Explanation]) -> list[tuple[str, str]]:
    """Group weights with the same explanation: a line and its style for each group."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for weight in explanations:
        key = (*_OUTCOMES[weight.exploited, weight.accepted], weight.reason)
        groups.setdefault(key, []).append(weight.name)
    outcomes = [outcome for outcome, _ in _OUTCOMES.values()]
    return [
        (f"{outcome}: {listed(names, NAMED_LAYERS)}: {reason}", style)
        for (outcome, style, reason), names in sorted(
            groups.items(), key=lambda group: outcomes.index(group[0][0])
        )
    ]
