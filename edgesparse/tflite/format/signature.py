"""Inputs, outputs and operators of a .tflite file, read without its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.flatbuffer import IDENTIFIER, damaged

_DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
FLEX = "Flex"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output. `shape` has -1 for a dynamic size; `name` is that in the SignatureDef,
    or the tensor's where the file has none."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_dynamic(self) -> bool:
        """Return whether a size besides the batch is dynamic."""
        return any(size < 1 for size in self.shape[1:])


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and operators of a model.

    `operators` counts each kind; `custom` names those that TFLite does not have. A `stateful` model
    keeps variables from one inference to the next, as recurrent layers do.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    custom: tuple[str, ...]
    stateful: bool


def read_signature(content: bytes, name: str = "model.tflite") -> Signature:
    """Read the signature of a model.

    Args:
        name: the file's, for messages.

    Raises:
        UsageError: the file is not a .tflite model, or is damaged.
    """
    if content[4:8] != IDENTIFIER:
        raise UsageError(f"{name} is not a .tflite model (its identifier TFL3 is missing)")
    with damaged(name):
        model = schema.Model.GetRootAs(content, 0)
        graphs = [model.Subgraphs(g) for g in range(model.SubgraphsLength())]
        main = graphs[0]
        sources, targets = _signature_names(model)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        kinds = [_kind(code) for code in codes]
        used = Counter(
            kinds[graph.Operators(o).OpcodeIndex()]
            for graph in graphs
            for o in range(graph.OperatorsLength())
        )
        return Signature(
            _tensor_specs(main, main.InputsAsNumpy(), sources),
            _tensor_specs(main, main.OutputsAsNumpy(), targets),
            dict(used.most_common()),
            tuple(
                sorted({(c.CustomCode() or b"").decode() for c in codes if _is_custom(c)} - {""})
            ),
            any(g.Tensors(t).IsVariable() for g in graphs for t in range(g.TensorsLength())),
        )


def quantize(values: np.ndarray[Any, Any], details: Any) -> np.ndarray[Any, Any]:
    """Quantize floats to the dtype of an input, described by an interpreter's `details`."""
    scale, zero = details["quantization"]
    if scale and np.issubdtype(details["dtype"], np.integer):
        limits = np.iinfo(details["dtype"])
        values = np.clip(np.round(values / scale) + zero, limits.min, limits.max)
    return values.astype(details["dtype"])


def dequantize(values: np.ndarray[Any, Any], details: Any) -> np.ndarray[Any, Any]:
    """Dequantize a tensor with one scale to float32."""
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values.astype(np.float32)


def in_order(specs: Sequence[TensorSpec], names: Sequence[str]) -> list[TensorSpec]:
    """Sort inputs or outputs by `names`, where the file has these; else keep the file's order."""
    by_name = {spec.name: spec for spec in specs}
    return [by_name[name] for name in names] if set(names) == set(by_name) else list(specs)


def explain_custom(custom: Iterable[str]) -> str | None:
    """Advise on operators that the supported runtimes lack; None where there are none."""
    flex = sorted(name.removeprefix(FLEX) for name in custom if name.startswith(FLEX))
    other = sorted(name for name in custom if not name.startswith(FLEX))
    advice = []
    if flex:
        advice.append(
            f"it needs TensorFlow operators ({', '.join(flex)}), which only runtimes with the Flex "
            "delegate have: convert it without SELECT_TF_OPS, or replace the layers that use them"
        )
    if other and other != ["edgetpu-custom-op"]:
        advice.append(
            f"it has custom operators ({', '.join(other)}), which only the application that it was "
            "built for registers: measure it there, or cut the model before them"
        )
    return "; ".join(advice) or None


def _kind(code: Any) -> str:
    if _is_custom(code):
        return (code.CustomCode() or b"CUSTOM").decode()
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return _OPERATORS.get(number, f"operator {number}")


def _is_custom(code: Any) -> bool:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return bool(number == schema.BuiltinOperator.CUSTOM)


def _signature_names(model: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of inputs and of outputs in the first SignatureDef, by tensor."""
    if not model.SignatureDefsLength():
        return {}, {}
    first = model.SignatureDefs(0)
    inputs = [first.Inputs(i) for i in range(first.InputsLength())]
    outputs = [first.Outputs(i) for i in range(first.OutputsLength())]
    return (
        {tensor.TensorIndex(): tensor.Name().decode() for tensor in inputs},
        {tensor.TensorIndex(): tensor.Name().decode() for tensor in outputs},
    )


def _tensor_specs(graph: Any, indexes: Any, names: Mapping[int, str]) -> tuple[TensorSpec, ...]:
    specs = []
    for index in [] if isinstance(indexes, int) else indexes.tolist():
        tensor = graph.Tensors(index)
        shape = tensor.ShapeAsNumpy()
        if tensor.ShapeSignatureLength():
            shape = tensor.ShapeSignatureAsNumpy()
        sizes = () if isinstance(shape, int) else tuple(int(size) for size in shape)
        name = names.get(index) or (tensor.Name() or b"").decode()
        specs.append(TensorSpec(name, index, sizes, _DTYPES.get(tensor.Type(), "unknown")))
    return tuple(specs)
