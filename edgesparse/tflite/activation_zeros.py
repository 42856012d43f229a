"""Shares of zeros in what the operators of a file compute, over samples.

    python -m edgesparse.tflite.activation_zeros MODEL.tflite SAMPLES.npy|.npz    one line of JSON

A program of its own, since a runtime can take its process down with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module
from edgesparse.spec.safe.text import clean
from edgesparse.tflite.operator_outputs import open_interpreter, read_samples, run

MOST_SAMPLES = 256
"""Enough for shares to a percent."""
TIMEOUT_SECONDS = 600


def zeros_between(model: Path, samples: Path) -> dict[str, float]:
    """Measure the share of zeros in each operator's output, over at most MOST_SAMPLES samples.

    Args:
        samples: a .npy with [n, ...] for one input; a .npz with such arrays by the inputs' names.

    Returns:
        The share by the tensor's name, in the operators' order; of outputs that are floats or
        quantized integers.

    Raises:
        UsageError: the samples do not match the model's inputs.
        EdgesparseError: the file does not run here.
    """
    reply = run_json_module(
        "edgesparse.tflite.activation_zeros", (model, samples), str(model), TIMEOUT_SECONDS
    )
    return {clean(str(name)): float(share) for name, share in reply["zeros"].items()}


def _zero_shares(model: Path, samples_file: Path) -> dict[str, float]:
    content = model.read_bytes()
    samples = read_samples(samples_file, content)
    interpreter = open_interpreter(content)
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    outputs = [i for op in interpreter._get_ops_details() for i in op["outputs"] if i in details]
    counts: dict[int, list[int]] = {}
    for _ in run(interpreter, content, samples, MOST_SAMPLES):
        for index in outputs:
            zero = details[index]["quantization"][1]
            if details[index]["dtype"] not in (np.float32, np.int8, np.uint8, np.int16):
                continue
            values = interpreter.get_tensor(index)
            count = counts.setdefault(index, [0, 0])
            count[0] += int(np.sum(values == zero))
            count[1] += values.size
    return {details[i]["name"]: zeros / max(1, size) for i, (zeros, size) in counts.items()}


def main(model: str, samples: str) -> None:
    print_json_reply(lambda: {"zeros": _zero_shares(Path(model), Path(samples))}, f"{model}: ")


if __name__ == "__main__":
    main(*sys.argv[1:])
