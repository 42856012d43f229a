"""What is in a .tflite file and what pays in it, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from edgesparse.report.console import shown
from edgesparse.report.table import percent_text, size_text
from edgesparse.spec.safe.text import listed
from edgesparse.tflite.format.signature import explain_custom

if TYPE_CHECKING:
    from edgesparse.tflite.format.inspect import ModelInfo
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
"""So many layers are named in one line about several."""


def print_inspection(
    name: str,
    info: ModelInfo,
    signature: Signature,
    tensors: Sequence[TensorInfo],
    explained: Mapping[str, Sequence[Explanation]],
    half_precision: Mapping[str, str],
    console: Console,
) -> None:
    """Print every weight; then, for each runtime, which zeros pay and why the others do not.

    Args:
        explained: by what is to be called the runtime.
        half_precision: the same: why a file that may be is not computed in half precision there.
    """
    console.print(
        shown(
            f"{name}: {size_text(info.bytes)} ({size_text(info.bytes_gzip)} with gzip), "
            f"{info.parameters:,} parameters, {percent_text(info.sparsity)} % zeros, stored "
            f"{info.storage}",
            style="bold",
        )
    )
    for line in _about(signature):
        console.print(shown(line))
    if info.half_precision:
        console.print(shown("computed in half precision where the CPU can"))
    if not tensors:
        console.print("no weights are visible in it")
        return
    console.print(_table(tensors))
    stored = sum(tensor.stored_bytes for tensor in tensors)
    bound = sum(tensor.entropy_bytes for tensor in tensors)
    console.print(
        shown(
            f"weights: {size_text(stored)}, {stored / max(1, bound):.2f} times the bound "
            "(entropy of which are zero, and of the others' values)"
        )
    )
    for runtime, found in explained.items():
        console.print()
        console.print(shown(runtime, style="bold cyan"))
        if runtime in half_precision:
            why = half_precision[runtime]
            said = f"gains nothing: half precision: {why}" if why else "half precision pays"
            console.print(shown(said, style="yellow" if why else "green"))
        for line, style in lines(found):
            console.print(shown(line, style=style))


def _about(signature: Signature) -> list[str]:
    """What a model takes and gives, and what it is made of."""
    sides = (("input", signature.inputs), ("output", signature.outputs))
    lines = [f"{side}{'s' * (len(e) > 1)}: {', '.join(map(_tensor_line, e))}" for side, e in sides]
    lines.append(
        "operators: " + ", ".join(f"{n} {kind}" for kind, n in signature.operators.items())
    )
    said = explain_custom(signature.custom)
    return [*lines, said] if said else lines


def _tensor_line(spec: TensorSpec) -> str:
    sizes = "x".join("?" if size < 1 else str(size) for size in spec.shape)
    return f"{spec.name} {sizes} {spec.dtype}" + (" (of open size)" if spec.is_dynamic else "")


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


def lines(found: Sequence[Explanation]) -> list[tuple[str, str]]:
    """One line, and its style, for each thing that is true of some weights."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        verdict = "pays" if one.exploited else "gains nothing" if one.accepted else "REFUSED"
        style = "green" if one.exploited else "yellow" if one.accepted else "bold red"
        groups.setdefault((verdict, one.reason, style), []).append(one.name)
    order = {"pays": 0, "gains nothing": 1, "REFUSED": 2}
    return [
        (f"{verdict}: {listed(names, NAMED_LAYERS)}: {reason}", style)
        for (verdict, reason, style), names in sorted(groups.items(), key=lambda g: order[g[0][0]])
    ]
