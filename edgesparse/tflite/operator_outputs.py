"""Runs a file on samples and keeps the outputs of all of its operators.

Only in a subprocess: a runtime can crash its process.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.signature import dequantize, quantize, read_signature

Arrays = dict[str, np.ndarray[Any, Any]]


def open_interpreter(content: bytes) -> Any:
    """Return an interpreter that keeps intermediate tensors; without delegates, which hide them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def read_samples(path: Path, content: bytes) -> Arrays:
    """Read the arrays [n, ...] of a .npy or .npz for a file's inputs, by the inputs' names.

    The name of a single array does not matter where the file has one input.

    Raises:
        UsageError: the arrays do not fit the inputs.
    """
    names = [spec.name for spec in read_signature(content, path.name).inputs]
    if not path.is_file():  # A FIFO would block.
        raise UsageError(f"{path} is not a NumPy array: no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        is_archive = not isinstance(loaded, np.ndarray)
        arrays = {name: loaded[name] for name in loaded.files} if is_archive else {"x": loaded}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a NumPy array: {error}") from None
    if len(names) == 1 and (len(arrays) == 1 or "x" in arrays):
        return {names[0]: arrays["x"] if "x" in arrays else next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UsageError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays)}")
    return {name: arrays[name] for name in names}


def hold_out(samples: Arrays, count: int) -> tuple[Arrays, Arrays]:
    """Split the first `count` samples: the last fifth is held out to measure the output error."""
    held_out = max(1, count // 5)
    used = {name: values[: max(1, count - held_out)] for name, values in samples.items()}
    return used, {name: values[count - held_out : count] for name, values in samples.items()}


def run(interpreter: Any, content: bytes, samples: Arrays, limit: int) -> Iterator[int]:
    """Run up to `limit` samples and yield each one's index, while the tensors hold its values.

    Raises:
        UsageError: a sample has another shape than its input.
    """
    sources = {details["index"]: details for details in interpreter.get_input_details()}
    indices = {spec.name: spec.index for spec in read_signature(content, "model.tflite").inputs}
    for number in range(min(limit, min(len(values) for values in samples.values()))):
        interpreter.reset_all_variables()
        for name, index in indices.items():
            source = sources[index]
            value = np.asarray(samples[name][number])
            if value.size != int(np.prod(source["shape"])):
                shape = source["shape"][1:].tolist()
                raise UsageError(f"a sample of {name} has shape {value.shape}, expected {shape}")
            interpreter.set_tensor(index, quantize(value, source).reshape(source["shape"]))
        interpreter.invoke()
        yield number


def output_error(before: bytes, after: bytes, samples: Arrays, limit: int) -> float:
    """Return the mean absolute difference between two files' outputs, as a share of the output's
    range in the first; that of the output where it is largest."""
    answers = []
    for content in (before, after):
        interpreter = open_interpreter(content)
        outputs = interpreter.get_output_details()
        answers.append(
            [[dequantize(interpreter.get_tensor(output["index"]), output) for output in outputs]
             for _ in run(interpreter, content, samples, limit)]
        )  # fmt: skip
    errors = []
    for outputs_before, outputs_after in zip(*(zip(*a, strict=True) for a in answers), strict=True):
        expected, actual = np.stack(outputs_before), np.stack(outputs_after)
        spread = float(expected.max() - expected.min()) or 1.0
        errors.append(float(np.abs(expected - actual).mean()) / spread)
    return max(errors)
