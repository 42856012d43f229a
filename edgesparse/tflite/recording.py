"""A file that is run on samples with everything kept that its operators give.

Only in a process of its own: a runtime can take its process down with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.signature import dequantized, ends, quantized

Arrays = dict[str, np.ndarray[Any, Any]]


def opened(content: bytes) -> Any:
    """An interpreter that keeps what is between operators; without delegates, which keep that to
    themselves."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def samples_of(path: Path, content: bytes) -> Arrays:
    """The arrays [n, ...] of a .npy or .npz for a file's inputs, by their names; one alone may be
    called anything. Raises UsageError where they do not fit."""
    names = [end.name for end in ends(content, path.name).inputs]
    try:
        given = np.load(path, allow_pickle=False)
        archive = not isinstance(given, np.ndarray)
        known = {name: given[name] for name in given.files} if archive else {"x": given}
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: is no array: {error}") from None
    if len(names) == 1 and (len(known) == 1 or "x" in known):
        return {names[0]: known["x"] if "x" in known else next(iter(known.values()))}
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(f"{path}: has no array {missing[0]!r}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


def kept_apart(every: Arrays, count: int) -> tuple[Arrays, Arrays]:
    """Of the first `count` samples those to work on, and the last fifth, to judge by."""
    apart = max(1, count // 5)
    given = {name: values[: max(1, count - apart)] for name, values in every.items()}
    return given, {name: values[count - apart : count] for name, values in every.items()}


def run(interpreter: Any, content: bytes, given: Arrays, most: int) -> Iterator[int]:
    """Run the samples one by one, at most so many; after each its number, while the tensors hold
    what it made. Raises UsageError where a sample does not fit."""
    sources = {end["index"]: end for end in interpreter.get_input_details()}
    named = {end.name: end.index for end in ends(content, "model.tflite").inputs}
    for number in range(min(most, min(len(values) for values in given.values()))):
        interpreter.reset_all_variables()
        for name, index in named.items():
            source = sources[index]
            value = np.asarray(given[name][number])
            if value.size != int(np.prod(source["shape"])):
                wanted = source["shape"][1:].tolist()
                raise UsageError(f"a sample of {name} has shape {value.shape}, not {wanted}")
            interpreter.set_tensor(index, quantized(value, source).reshape(source["shape"]))
        interpreter.invoke()
        yield number


def off(before: bytes, after: bytes, given: Arrays, most: int) -> float:
    """How far one file's answers are from another's: the mean of the differences, as a share of an
    output's range in the first; of the output where that is largest."""
    answers = []
    for content in (before, after):
        interpreter = opened(content)
        outputs = interpreter.get_output_details()
        answers.append(
            [[dequantized(interpreter.get_tensor(end["index"]), end) for end in outputs]
             for _ in run(interpreter, content, given, most)]
        )  # fmt: skip
    shares = []
    for own, other in zip(
        zip(*answers[0], strict=True), zip(*answers[1], strict=True), strict=True
    ):
        wanted, found = np.stack(own), np.stack(other)
        spread = float(wanted.max() - wanted.min()) or 1.0
        shares.append(float(np.abs(wanted - found).mean()) / spread)
    return max(shares)
