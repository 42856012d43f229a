"""What a .tflite file takes and gives, and which operators it has, read without its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.graph import IDENTIFIER, damaged

_DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
FLEX = "Flex"


@dataclass(frozen=True)
class End:
    """An input or output. `shape` has -1 where the file leaves a size open; `name` is that of its
    signature where there is one, else the tensor's."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_open(self) -> bool:
        """Whether a size besides the batch is open."""
        return any(size < 1 for size in self.shape[1:])


@dataclass(frozen=True)
class Ends:
    """`operators` counts each kind; `custom` are the names of those that TFLite does not have.
    `stateful`: it keeps something from one inference to the next, as recurrent layers do."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    operators: Mapping[str, int]
    custom: tuple[str, ...]
    stateful: bool


def ends(content: bytes, name: str = "model.tflite") -> Ends:
    """Read them. Raises UsageError where the file is none or damaged."""
    if content[4:8] != IDENTIFIER:
        raise UsageError(f"{name}: is not a .tflite model (its identifier TFL3 is missing)")
    with damaged(name):
        model = schema.Model.GetRootAs(content, 0)
        graphs = [model.Subgraphs(g) for g in range(model.SubgraphsLength())]
        main = graphs[0]
        sources, targets = _signature(model)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        kinds = [_kind(code) for code in codes]
        used = Counter(
            kinds[graph.Operators(o).OpcodeIndex()]
            for graph in graphs
            for o in range(graph.OperatorsLength())
        )
        return Ends(
            _ends(main, main.InputsAsNumpy(), sources),
            _ends(main, main.OutputsAsNumpy(), targets),
            dict(used.most_common()),
            tuple(
                sorted({(c.CustomCode() or b"").decode() for c in codes if _is_custom(c)} - {""})
            ),
            any(g.Tensors(t).IsVariable() for g in graphs for t in range(g.TensorsLength())),
        )


def quantized(values: np.ndarray[Any, Any], details: Any) -> np.ndarray[Any, Any]:
    """Real numbers in the numbers of an input, `details` as a runtime's interpreter gives them."""
    scale, zero = details["quantization"]
    if scale and np.issubdtype(details["dtype"], np.integer):
        limits = np.iinfo(details["dtype"])
        values = np.clip(np.round(values / scale) + zero, limits.min, limits.max)
    return values.astype(details["dtype"])


def dequantized(values: np.ndarray[Any, Any], details: Any) -> np.ndarray[Any, Any]:
    """The real numbers, float32, that a tensor's numbers stand for; one scale for all of it."""
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values.astype(np.float32)


def in_order(found: Sequence[End], names: Sequence[str]) -> list[End]:
    """Ends by names, where the file has them; else as they stand in it."""
    known = {end.name: end for end in found}
    return [known[name] for name in names] if set(names) == set(known) else list(found)


def explain_custom(custom: Iterable[str]) -> str | None:
    """What to do about operators that no runtime here has; None where there are none."""
    flex = sorted(name.removeprefix(FLEX) for name in custom if name.startswith(FLEX))
    other = sorted(name for name in custom if not name.startswith(FLEX))
    said = []
    if flex:
        said.append(
            f"it needs TensorFlow's own operators ({', '.join(flex)}), which only runtimes with "
            "the Flex delegate have: convert it without SELECT_TF_OPS, or replace what uses them"
        )
    if other and other != ["edgetpu-custom-op"]:
        said.append(
            f"it has custom operators ({', '.join(other)}), which the program it was made for "
            "registers: measure it there, or cut the model before them"
        )
    return "; ".join(said) or None


def _kind(code: Any) -> str:
    if _is_custom(code):
        return (code.CustomCode() or b"CUSTOM").decode()
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return _OPERATORS.get(number, f"operator {number}")


def _is_custom(code: Any) -> bool:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return bool(number == schema.BuiltinOperator.CUSTOM)


def _signature(model: Any) -> tuple[dict[int, str], dict[int, str]]:
    """The names of the first signature, by tensor."""
    if not model.SignatureDefsLength():
        return {}, {}
    first = model.SignatureDefs(0)
    inputs = [first.Inputs(i) for i in range(first.InputsLength())]
    outputs = [first.Outputs(i) for i in range(first.OutputsLength())]
    return (
        {one.TensorIndex(): one.Name().decode() for one in inputs},
        {one.TensorIndex(): one.Name().decode() for one in outputs},
    )


def _ends(graph: Any, indexes: Any, names: Mapping[int, str]) -> tuple[End, ...]:
    found = []
    for index in [] if isinstance(indexes, int) else indexes.tolist():
        tensor = graph.Tensors(index)
        shape = tensor.ShapeAsNumpy()
        if tensor.ShapeSignatureLength():
            shape = tensor.ShapeSignatureAsNumpy()
        sizes = () if isinstance(shape, int) else tuple(int(size) for size in shape)
        name = names.get(index) or (tensor.Name() or b"").decode()
        found.append(End(name, index, sizes, _DTYPES.get(tensor.Type(), "unknown")))
    return tuple(found)
