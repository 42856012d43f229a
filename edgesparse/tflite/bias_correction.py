"""Biases of an int8 file that make up for what rounding its weights did to the layers' means.

    python -m edgesparse.tflite.bias_correction EXACT QUANTIZED SAMPLES OUT

A program of its own, since a runtime can take its process down with it. Empirical bias correction
(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, appendix D), without labels: layer after layer, the mean over samples and positions of
what each output channel sums up becomes what it is in the float file, given what the layers before
it give by then.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.programs import run_json_module
from edgesparse.tflite.format.encode import packed
from edgesparse.tflite.format.graph import (
    Constant,
    constants,
    indices,
    open_model,
    operator_name,
    put,
)
from edgesparse.tflite.format.signature import dequantize
from edgesparse.tflite.patches import patches
from edgesparse.tflite.recording import (
    Arrays,
    hold_out,
    open_interpreter,
    output_error,
    read_samples,
    run,
)

MOST = 100
"""Samples that are looked at, at most; a fifth of those that are given is kept apart."""
KNOWN = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Corrected:
    """What came of it."""

    layers: int
    """Whose biases changed."""
    before: float
    """How far the answers were from the float file's on samples that were kept apart: the mean of
    the differences, as a share of an output's range."""
    after: float
    """How far they are now. Where that is further, the file stayed as it was."""


def correct_biases(exact: Path, quantized: Path, samples: Path, target: Path) -> Corrected:
    """Write `quantized` to `target` with biases that keep the means of `exact`, the same network in
    float, where that brings its answers nearer.

    Args:
        samples: a .npy with [n, ...] for one input; a .npz with such arrays by the inputs' names.

    Raises:
        UsageError: the samples do not fit, or the two are not the same network.
        EdgesparseError: a file does not run here.
    """
    words = (exact, quantized, samples, target)
    module = "edgesparse.tflite.bias_correction"
    found = run_json_module(module, words, str(quantized), TIMEOUT_SECONDS)
    return Corrected(int(found["layers"]), float(found["before"]), float(found["after"]))


@dataclass(frozen=True)
class _Layer:
    """An operator with weights, and with a bias that is its own where it has one."""

    operator: Any
    source: int
    """The tensor of its input."""
    weights: Constant
    scales: np.ndarray[Any, Any]
    bias: Constant | None
    bias_scales: np.ndarray[Any, Any]

    def means(self, given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Of what it is given once, the mean of what its outputs are summed up from: [inputs], of a
        depthwise convolution [taps, channels]."""
        shape = self.weights.values.shape
        if self.weights.op == "FULLY_CONNECTED":
            return given.reshape(-1, shape[1]).mean(axis=0)
        rows = patches(given, shape, self.operator.builtinOptions).mean(axis=0)
        channels = given.shape[-1]
        return rows.reshape(-1, channels) if self.weights.op == "DEPTHWISE_CONV_2D" else rows

    def sums(self, means: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The mean of each output channel before its activation function."""
        values = self.weights.values.astype(np.float64)
        if self.weights.op == "DEPTHWISE_CONV_2D":
            outputs = values.shape[-1]
            each = np.repeat(means, outputs // means.shape[-1], axis=-1)
            found = np.sum(values.reshape(-1, outputs) * each, axis=0) * self.scales
        else:
            found = values.reshape(len(values), -1) @ means * self.scales
        if self.bias is None:
            return np.asarray(found)
        return np.asarray(found + self.bias.values.reshape(-1) * self.bias_scales)


def _scales(model: Any, constant: Constant | None) -> np.ndarray[Any, Any]:
    if constant is None:
        return np.ones(1)
    quantization = model.subgraphs[0].tensors[constant.tensor].quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return np.ones(1)
    return np.asarray(quantization.scale, np.float64)


def _layers(model: Any, content: bytes) -> list[_Layer]:
    """In the file's order."""
    every = [c for c in constants(model, content) if c.graph == 0]
    shared = Counter(c.buffer for c in every)
    weights = {c.operator: c for c in every if c.slot == 1 and c.op in KNOWN and c.is_weight}
    biases = {c.operator: c for c in every if c.slot == 2 and shared[c.buffer] == 1}
    found = []
    for place, operator in enumerate(model.subgraphs[0].operators or ()):
        if operator_name(model, operator) not in KNOWN or place not in weights:
            continue
        own, bias = weights[place], biases.get(place)
        source = indices(operator.inputs)[0]
        scales = _scales(model, own)
        found.append(_Layer(operator, source, own, scales, bias, _scales(model, bias)))
    return found


def _means(content: bytes, layers: Sequence[_Layer], given: Arrays) -> list[np.ndarray[Any, Any]]:
    """Over the samples, of each layer."""
    interpreter = open_interpreter(content)
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    sums: list[Any] = [0.0] * len(layers)
    count = 0
    for _ in run(interpreter, content, given, MOST):
        count += 1
        for place, layer in enumerate(layers):
            values = interpreter.get_tensor(layer.source)
            sums[place] = sums[place] + layer.means(dequantize(values, details[layer.source]))
    return [np.asarray(one / count, np.float64) for one in sums]


def _corrected(exact: bytes, quantized: bytes, given: Arrays) -> tuple[bytes, int]:
    float_layers = _layers(open_model(exact, "exact.tflite"), exact)
    model = open_model(quantized, "quantized.tflite")
    layers = _layers(model, quantized)
    kinds = [[(one.weights.op, one.weights.values.shape) for one in own]
             for own in (float_layers, layers)]  # fmt: skip
    if kinds[0] != kinds[1]:
        raise UsageError("its layers are not those of the float file")
    wanted = [
        layer.sums(means)
        for layer, means in zip(float_layers, _means(exact, float_layers, given), strict=True)
    ]
    now, changed = quantized, 0
    for layer, goal in zip(layers, wanted, strict=True):
        if layer.bias is None or layer.bias.values.dtype != np.int32:
            continue
        (means,) = _means(now, [layer], given)
        shift = np.rint((goal - layer.sums(means)) / layer.bias_scales)
        if not shift.any():
            continue
        limits = np.iinfo(np.int32)
        values = np.clip(layer.bias.values + shift, limits.min, limits.max).astype(np.int32)
        put(model, layer.bias, values)
        now, changed = packed(model, aligned=True), changed + 1
    return now, changed


def main(exact: str, quantized: str, samples: str, target: str) -> None:
    try:
        before, content = Path(exact).read_bytes(), Path(quantized).read_bytes()
        every = read_samples(Path(samples), content)
        count = min(MOST, min(len(values) for values in every.values()))
        given, kept = hold_out(every, count)
        made, changed = _corrected(before, content, given)
        done = Corrected(
            changed,
            output_error(before, content, kept, MOST),
            output_error(before, made, kept, MOST),
        )
        Path(target).write_bytes(made if done.after < done.before else content)
        said: dict[str, Any] = asdict(done)
    except (UsageError, ValueError, RuntimeError) as error:
        said = {"wrong": f"{Path(quantized).name}: {error}"}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
