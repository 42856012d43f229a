"""Corrects the biases of an int8 file for the shift that rounded weights cause in layers' means.

    python -m edgesparse.tflite.bias_correction EXACT QUANTIZED SAMPLES OUT

A program of its own, since a runtime can take its process down with it. Empirical bias correction
(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, appendix D), without labels: layer by layer, the mean of each output channel before its
activation, over samples and positions, becomes what it is in the float file, on the outputs of the
layers that were corrected before it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module
from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import (
    Constant,
    constants,
    indices,
    open_model,
    operator_name,
    set_values,
)
from edgesparse.tflite.format.signature import dequantize
from edgesparse.tflite.im2col import patches
from edgesparse.tflite.operator_outputs import (
    Arrays,
    hold_out,
    open_interpreter,
    output_error,
    read_samples,
    run,
)

MOST_SAMPLES = 100
"""At most; a fifth of them is held out."""
WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Corrected:
    """The effect of a correction."""

    layers: int
    """The number of layers whose biases changed."""
    before: float
    """Output error against the float file on held-out samples: the mean difference, as a share of
    the output's range."""
    after: float
    """The same afterwards. Where it is larger, the file was left unchanged."""


def correct_biases(exact: Path, quantized: Path, samples: Path, target: Path) -> Corrected:
    """Write `quantized` to `target` with biases that keep the means of `exact`, the same network in
    float, if that lowers its output error.

    Args:
        samples: a .npy with [n, ...] for one input; a .npz with such arrays by the inputs' names.

    Raises:
        UsageError: the samples do not match the inputs, or the files are not the same network.
        EdgesparseError: a file does not run here.
    """
    words = (exact, quantized, samples, target)
    module = "edgesparse.tflite.bias_correction"
    reply = run_json_module(module, words, str(quantized), TIMEOUT_SECONDS)
    return Corrected(int(reply["layers"]), float(reply["before"]), float(reply["after"]))


@dataclass(frozen=True)
class _Layer:
    """An operator with weights, and its bias unless another operator shares it."""

    operator: Any
    source: int
    """The tensor of its input."""
    weights: Constant
    scales: np.ndarray[Any, Any]
    bias: Constant | None
    bias_scales: np.ndarray[Any, Any]

    def means(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Average its input values over positions: [inputs], of a depthwise convolution
        [taps, channels]."""
        shape = self.weights.values.shape
        if self.weights.op == "FULLY_CONNECTED":
            return inputs.reshape(-1, shape[1]).mean(axis=0)
        rows = patches(inputs, shape, self.operator.builtinOptions).mean(axis=0)
        channels = inputs.shape[-1]
        return rows.reshape(-1, channels) if self.weights.op == "DEPTHWISE_CONV_2D" else rows

    def sums(self, means: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Compute the mean of each output channel before its activation, from the inputs' means."""
        values = self.weights.values.astype(np.float64)
        if self.weights.op == "DEPTHWISE_CONV_2D":
            outputs = values.shape[-1]
            each = np.repeat(means, outputs // means.shape[-1], axis=-1)
            sums = np.sum(values.reshape(-1, outputs) * each, axis=0) * self.scales
        else:
            sums = values.reshape(len(values), -1) @ means * self.scales
        if self.bias is None:
            return np.asarray(sums)
        return np.asarray(sums + self.bias.values.reshape(-1) * self.bias_scales)


def _scales(model: Any, constant: Constant | None) -> np.ndarray[Any, Any]:
    if constant is None:
        return np.ones(1)
    quantization = model.subgraphs[0].tensors[constant.tensor].quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return np.ones(1)
    return np.asarray(quantization.scale, np.float64)


def _layers(model: Any, content: bytes) -> list[_Layer]:
    """List the layers with weights, in the file's order."""
    every = [c for c in constants(model, content) if c.graph == 0]
    shared = Counter(c.buffer for c in every)
    weights = {c.operator: c for c in every if c.slot == 1 and c.op in WEIGHTED and c.is_weight}
    biases = {c.operator: c for c in every if c.slot == 2 and shared[c.buffer] == 1}
    layers = []
    for i, operator in enumerate(model.subgraphs[0].operators or ()):
        if operator_name(model, operator) not in WEIGHTED or i not in weights:
            continue
        bias = biases.get(i)
        scales = _scales(model, weights[i]), _scales(model, bias)
        source = indices(operator.inputs)[0]
        layers.append(_Layer(operator, source, weights[i], scales[0], bias, scales[1]))
    return layers


def _means(content: bytes, layers: Sequence[_Layer], samples: Arrays) -> list[np.ndarray[Any, Any]]:
    """Average each layer's inputs over the samples."""
    interpreter = open_interpreter(content)
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    sums: list[Any] = [0.0] * len(layers)
    count = 0
    for _ in run(interpreter, content, samples, MOST_SAMPLES):
        count += 1
        for i, layer in enumerate(layers):
            values = interpreter.get_tensor(layer.source)
            sums[i] = sums[i] + layer.means(dequantize(values, details[layer.source]))
    return [np.asarray(total / count, np.float64) for total in sums]


def _correct(exact: bytes, quantized: bytes, samples: Arrays) -> tuple[bytes, int]:
    """Return the corrected file, and the number of layers that changed."""
    float_layers = _layers(open_model(exact, "exact.tflite"), exact)
    model = open_model(quantized, "quantized.tflite")
    layers = _layers(model, quantized)
    kinds = [[(layer.weights.op, layer.weights.values.shape) for layer in both]
             for both in (float_layers, layers)]  # fmt: skip
    if kinds[0] != kinds[1]:
        raise UsageError("its layers differ from the float file's")
    targets = [
        layer.sums(means)
        for layer, means in zip(float_layers, _means(exact, float_layers, samples), strict=True)
    ]
    corrected, changed = quantized, 0
    for layer, target in zip(layers, targets, strict=True):
        if layer.bias is None or layer.bias.values.dtype != np.int32:
            continue
        (means,) = _means(corrected, [layer], samples)
        shift = np.rint((target - layer.sums(means)) / layer.bias_scales)
        if not shift.any():
            continue
        limits = np.iinfo(np.int32)
        values = np.clip(layer.bias.values + shift, limits.min, limits.max).astype(np.int32)
        set_values(model, layer.bias, values)
        corrected, changed = serialize(model, aligned=True), changed + 1
    return corrected, changed


def _correct_file(exact: Path, quantized: Path, samples_file: Path, target: Path) -> dict[str, Any]:
    reference, content = exact.read_bytes(), quantized.read_bytes()
    all_samples = read_samples(samples_file, content)
    count = min(MOST_SAMPLES, min(len(values) for values in all_samples.values()))
    samples, held_out = hold_out(all_samples, count)
    corrected, changed = _correct(reference, content, samples)
    effect = Corrected(
        changed,
        output_error(reference, content, held_out, MOST_SAMPLES),
        output_error(reference, corrected, held_out, MOST_SAMPLES),
    )
    target.write_bytes(corrected if effect.after < effect.before else content)
    return asdict(effect)


def main(exact: str, quantized: str, samples: str, target: str) -> None:
    files = Path(exact), Path(quantized), Path(samples), Path(target)
    print_json_reply(lambda: _correct_file(*files), f"{files[1].name}: ")


if __name__ == "__main__":
    main(*sys.argv[1:])
