"""How much between a file's operators is zero, for given samples.

    python -m edgesparse.tflite.activations MODEL.tflite SAMPLES.npy|.npz    one line of JSON

A program of its own, since a runtime can take its process down with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.text import clean

MOST = 256
"""Samples that are looked at, at most."""
TIMEOUT_SECONDS = 600


def zeros_between(model: Path, samples: Path) -> dict[str, float]:
    """The share of zeros in what each operator gives, in their order, by its tensor's name; of
    those that give floats or quantized numbers.

    Args:
        samples: a .npy with [n, ...] for one input; a .npz with such arrays by the inputs' names.

    Raises:
        UsageError: the samples do not fit the model.
        EdgesparseError: the file does not run here.
    """
    module = "edgesparse.tflite.activations"
    done = subprocess.run(
        [sys.executable, "-m", module, str(model), str(samples)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    said = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        found = json.loads(said[0])
    except ValueError:
        raise EdgesparseError(f"{model}: its runtime crashed ({done.returncode})") from None
    if "wrong" in found:
        raise UsageError(clean(str(found["wrong"])))
    return {clean(str(name)): float(share) for name, share in found["zeros"].items()}


def _read(path: Path, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        given = np.load(path, allow_pickle=False)
        archive = not isinstance(given, np.ndarray)
        known = {name: given[name] for name in given.files} if archive else {"x": given}
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: is no array: {error}") from None
    if len(known) == len(names) == 1:
        return {names[0]: next(iter(known.values()))}
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(f"{path}: has no array {missing[0]!r}; it has {', '.join(known)}")
    return known


def _measured(model: Path, samples: Path) -> dict[str, float]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from edgesparse.tflite.format.ends import ends, quantized

    # Without delegates, which keep what is between their operators to themselves.
    interpreter = Interpreter(
        str(model),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    sources = {end["index"]: end for end in interpreter.get_input_details()}
    named = {end.name: end.index for end in ends(model.read_bytes(), model.name).inputs}
    given = _read(samples, list(named))
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    made = [i for op in interpreter._get_ops_details() for i in op["outputs"] if i in details]
    counts: dict[int, list[int]] = {}
    for number in range(min(MOST, min(len(values) for values in given.values()))):
        interpreter.reset_all_variables()
        for name, index in named.items():
            source = sources[index]
            value = np.asarray(given[name][number])
            if value.size != int(np.prod(source["shape"])):
                wanted = source["shape"][1:].tolist()
                raise UsageError(f"{samples}: {name} has shape {value.shape}, not {wanted}")
            interpreter.set_tensor(index, quantized(value, source).reshape(source["shape"]))
        interpreter.invoke()
        for index in made:
            zero = details[index]["quantization"][1]
            if details[index]["dtype"] not in (np.float32, np.int8, np.uint8, np.int16):
                continue
            values = interpreter.get_tensor(index)
            own = counts.setdefault(index, [0, 0])
            own[0] += int(np.sum(values == zero))
            own[1] += values.size
    return {details[i]["name"]: zeros / max(1, size) for i, (zeros, size) in counts.items()}


def main(model: str, samples: str) -> None:
    try:
        said: dict[str, Any] = {"zeros": _measured(Path(model), Path(samples))}
    except UsageError as error:
        said = {"wrong": str(error)}
    except (ValueError, RuntimeError) as error:
        said = {"wrong": f"{model}: does not run: {error}"}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
