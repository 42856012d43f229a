"""The Edge TPU compiler: its command line, its log, and checks of the file that it writes.

Written from the public documentation of edgetpu_compiler 16.0, https://coral.ai/docs/edgetpu/compiler.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgesparse.spec.device import EdgeTpu
from edgesparse.spec.errors import EdgesparseError

CUSTOM_OPERATOR = b"edgetpu-custom-op"
MAPPED = "Mapped to Edge TPU"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MAX_OPERATORS = 1000


@dataclass(frozen=True)
class Operator:
    """A line of the log's table: `count` operators of a kind, and whether they were mapped."""

    name: str
    count: int
    status: str


@dataclass(frozen=True)
class CompilerLog:
    """A parsed log; None for lines that it lacks. Sizes are those of parameters."""

    version: str | None
    on_chip_bytes: int | None
    on_chip_free_bytes: int | None
    off_chip_bytes: int | None
    subgraphs: int | None
    operators: tuple[Operator, ...]

    @property
    def total(self) -> int:
        return sum(operator.count for operator in self.operators)

    @property
    def mapped(self) -> int:
        return sum(op.count for op in self.operators if op.status == MAPPED)

    @property
    def unmapped(self) -> tuple[Operator, ...]:
        return tuple(operator for operator in self.operators if operator.status != MAPPED)


def arguments(tpu: EdgeTpu, source: str, folder: str) -> list[str]:
    """The compiler's arguments that make `folder`/STEM_edgetpu.tflite of `source`."""
    options = ["-s", "-o", folder, "-t", str(tpu.timeout_seconds)]
    if tpu.min_runtime_version is not None:
        options += ["-m", str(tpu.min_runtime_version)]
    if tpu.multiple_subgraphs:
        options.append("-a")
    if tpu.search_delegate:
        options.append("-d")
    return [*options, source]


def parse_log(text: str) -> CompilerLog:
    """Read what the compiler prints with -s, or the .log file beside its output."""
    return CompilerLog(
        version=compiler_version(text),
        on_chip_bytes=_size(text, "On-chip memory used for caching model parameters"),
        on_chip_free_bytes=_size(text, "On-chip memory remaining for caching model parameters"),
        off_chip_bytes=_size(text, "Off-chip memory used for streaming uncached model parameters"),
        subgraphs=_number(text, "Number of Edge TPU subgraphs"),
        operators=_operators(text),
    )


def compiler_version(text: str) -> str | None:
    match = re.search(r"^Edge TPU Compiler version ([0-9.]{1,40})", text, re.MULTILINE)
    return match.group(1) if match else None


def _size(text: str, what: str) -> int | None:
    match = re.search(rf"^{re.escape(what)}: ([0-9.]+)(B|KiB|MiB|GiB)\s*$", text, re.MULTILINE)
    return round(float(match.group(1)) * _UNITS[match.group(2)]) if match else None


def _number(text: str, what: str) -> int | None:
    match = re.search(rf"^{re.escape(what)}: (\d{{1,9}})\s*$", text, re.MULTILINE)
    return int(match.group(1)) if match else None


def _operators(text: str) -> tuple[Operator, ...]:
    head = re.search(r"^Operator\s+Count\s+Status\s*$", text, re.MULTILINE)
    if head is None:
        return ()
    lines = re.findall(
        r"^([A-Za-z0-9_-]{1,60})[ \t]+(\d{1,9})[ \t]+(\S[^\n]{0,200})$",
        text[head.end() :],
        re.MULTILINE,
    )
    return tuple(Operator(name, int(count), status) for name, count, status in lines)[
        :_MAX_OPERATORS
    ]


_REASONS = {
    "Model not quantized": "the model is not fully quantized",
    "dynamic-sized tensors": "the model has tensors of dynamic size; give its input a fixed shape",
    "large activation tensors": "its activations are too large for the chip; use a smaller input",
    "Internal compiler error": "the compiler failed (internal compiler error); "
    "'search_delegate: true' in the device file looks for a part that compiles",
}


def failure(text: str) -> str:
    """Summarize in one line why the compiler wrote no file, from its output."""
    for words, reason in _REASONS.items():
        if words in text:
            return reason
    match = re.search(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", text)
    if match:
        return (
            f"this compiler does not support {match.group(1)} version {match.group(2)}: its TFLite "
            "is older than the file"
        )
    errors = [
        line.strip()
        for line in text.splitlines()
        if re.search(r"error|invalid|failed|timed? ?out", line, re.IGNORECASE)
        and line.strip() != "Compilation failed!"
    ]
    return errors[-1][:300] if errors else "it printed no reason"


def notes(log: CompilerLog) -> list[str]:
    """Describe in notes for the table which operators and parameters are on the chip."""
    if not log.operators:
        return ["Edge TPU: compiled elsewhere, without a log beside it"]
    text = f"Edge TPU: {log.mapped} of {log.total} operators mapped"
    if log.on_chip_bytes is not None:
        text += f", {_size_text(log.on_chip_bytes)} of parameters on chip"
    if log.off_chip_bytes:
        text += f", {_size_text(log.off_chip_bytes)} streamed to it on every inference"
    lines = [text]
    if log.unmapped:
        listed = "; ".join(f"{op.count} {op.name}: {op.status}" for op in log.unmapped[:8])
        lines.append(f"on the CPU instead of the Edge TPU: {listed}")
    return lines


def _size_text(size_bytes: int) -> str:
    mib = size_bytes / (1 << 20)
    return f"{mib:.2f} MiB" if mib >= 0.1 else f"{size_bytes / 1024:.1f} KiB"


def require_compiled(compiled: bytes, source: bytes, name: str) -> None:
    """Check that `compiled` has a part for the Edge TPU, and the inputs and outputs of `source`.

    Raises EdgesparseError where it has not.
    """
    try:
        ours, theirs = _Outline.of(compiled), _Outline.of(source)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise EdgesparseError(f"{name}: is damaged; compile it again ({error})") from None
    if CUSTOM_OPERATOR not in ours.custom:
        raise EdgesparseError(
            f"{name}: none of its operators is mapped to the Edge TPU (no edgetpu-custom-op)"
        )
    if ours.interface != theirs.interface:
        raise EdgesparseError(f"{name}: compiled from another model: its inputs or outputs differ")


def is_compiled(content: bytes) -> bool:
    """Return True for a .tflite file with a part for the Edge TPU."""
    try:
        return CUSTOM_OPERATOR in _Outline.of(content).custom
    except (struct.error, IndexError, ValueError, TypeError, AttributeError):
        return False


@dataclass(frozen=True)
class _Outline:
    """Custom operators, and shape, type, scale and zero point of inputs and outputs."""

    custom: frozenset[bytes]
    interface: tuple[Any, ...]

    @classmethod
    def of(cls, content: bytes) -> _Outline:
        model = schema.Model.GetRootAs(content, 0)
        codes = [model.OperatorCodes(i).CustomCode() for i in range(model.OperatorCodesLength())]
        graph = model.Subgraphs(0)
        tensors = [
            *(graph.Inputs(i) for i in range(graph.InputsLength())),
            *(graph.Outputs(i) for i in range(graph.OutputsLength())),
        ]
        return cls(
            frozenset(code for code in codes if code), tuple(_tensor(graph, i) for i in tensors)
        )


def _tensor(graph: Any, index: int) -> tuple[Any, ...]:
    tensor = graph.Tensors(index)
    shape = tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))
    scales = tensor.Quantization()
    if scales is None or scales.ScaleLength() == 0:
        return shape, tensor.Type()
    zero_point = scales.ZeroPoint(0) if scales.ZeroPointLength() else 0
    return shape, tensor.Type(), round(scales.Scale(0), 9), zero_point
