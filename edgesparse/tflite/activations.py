"""How much between a file's operators is zero, for given samples.

    python -m edgesparse.tflite.activations MODEL.tflite SAMPLES.npy|.npz    one line of JSON

A program of its own, since a runtime can take its process down with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.programs import run_json_module
from edgesparse.spec.safe.text import clean
from edgesparse.tflite.recording import open_interpreter, read_samples, run

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
    found = run_json_module(
        "edgesparse.tflite.activations", (model, samples), str(model), TIMEOUT_SECONDS
    )
    return {clean(str(name)): float(share) for name, share in found["zeros"].items()}


def _measured(model: Path, samples: Path) -> dict[str, float]:
    content = model.read_bytes()
    given = read_samples(samples, content)
    interpreter = open_interpreter(content)
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    made = [i for op in interpreter._get_ops_details() for i in op["outputs"] if i in details]
    counts: dict[int, list[int]] = {}
    for _ in run(interpreter, content, given, MOST):
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
