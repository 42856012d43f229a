"""Quantizes a float .tflite file with ai-edge-quantizer (Google), without its Keras model.

    python -m edgesparse.tflite.post_training.quantize MODEL SAMPLES SCHEME OUT

A program of its own: it runs the file, and the quantizer prints. The package is optional; releases
up to 0.8 take the runtime that edgesparse is tested with.
"""

from __future__ import annotations

import contextlib
import io
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from edgesparse.spec.errors import EdgesparseError, UsageError, summary_of
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module
from edgesparse.tflite.format.encode import decode
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.operator_outputs import Arrays, open_interpreter, run
from edgesparse.tflite.post_training.calibration_samples import (
    judge_file,
    split_samples,
    with_sample_shapes,
)
from edgesparse.tflite.post_training.half_weights import halve_weights
from edgesparse.tflite.post_training.judgement import OutputLoss, as_json, from_json
from edgesparse.tflite.post_training.normalize import normalize

DenseScheme = Literal["int8", "dynamic", "int8-weights", "f16"]
DENSE_SCHEMES: tuple[DenseScheme, ...] = ("int8", "dynamic", "int8-weights", "f16")
"""The fastest on most devices first. int8-weights computes as the float file does, f16 needs no
quantizer."""
INSTALL = "pip install 'edgesparse[quantizer]'"


def is_available() -> bool:
    """Return whether ai-edge-quantizer is installed."""
    return find_spec("ai_edge_quantizer") is not None


def quantize_file(
    model: Path, samples: Path, scheme: DenseScheme, target: Path, timeout_seconds: float
) -> list[OutputLoss]:
    """Write `model` in another number format to `target`, in a child process.

    Args:
        samples: see `reconstruction.reconstruct`; int8 takes its ranges from them.

    Returns:
        What each output loses, on samples that the ranges are not from.

    Raises:
        UsageError: samples do not fit, or the file has no float weights.
        EdgesparseError: the quantizer does not support the file, or takes too long.
    """
    words = (model, samples, scheme, target)
    module = "edgesparse.tflite.post_training.quantize"
    return from_json(run_json_module(module, words, str(model), timeout_seconds)["losses"])


def _quantize(model: Path, samples_file: Path, scheme: DenseScheme, target: Path) -> dict[str, Any]:
    content = decode(model.read_bytes(), model.name)
    weights = [c for c in constants(open_model(content, model.name), content) if c.is_weight]
    if not any(c.values.dtype.kind == "f" for c in weights):
        raise UsageError("no float weights to quantize; pass the float model")
    used, held_out = split_samples(samples_file, content)
    content = with_sample_shapes(content, used)
    result = quantized(content, model.name, scheme, used)
    target.write_bytes(result)
    return {"losses": as_json(judge_file(content, result, held_out))}


def quantized(content: bytes, name: str, scheme: DenseScheme, samples: Arrays) -> bytes:
    """Return a float file in another number format; int8 takes its ranges from all samples.

    Args:
        samples: [n, ...] by the names of the file's inputs.

    Raises:
        EdgesparseError: the quantizer is not installed, or does not support the file.
    """
    normalized = normalize(content, name)
    if scheme == "f16":
        return halve_weights(normalized)
    if not is_available():
        raise EdgesparseError(f"{scheme} without the Keras model requires: {INSTALL}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return _with_recipe(normalized, scheme, samples)
    except Exception as error:
        raise EdgesparseError(f"ai-edge-quantizer: {summary_of(error)}") from error


def _with_recipe(content: bytes, scheme: DenseScheme, used: Arrays) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    recipes = {
        "int8": recipe.static_wi8_ai8,
        "dynamic": recipe.dynamic_wi8_afp32,
        "int8-weights": recipe.weight_only_wi8_afp32,
    }
    names = qtyping.TFLOperationName
    quantization = quantizer.Quantizer(bytearray(content), recipes[scheme]())
    if scheme == "int8":
        # Programs go on to pass and to read floats.
        for name in (names.INPUT, names.OUTPUT):
            quantization.update_quantization_recipe(".*", name, algorithm_key="no_quantize")
    if scheme == "dynamic":
        # XNNPACK runs depthwise convolutions in f32 or int8 only: each would cut the network.
        weights = qtyping.TensorQuantizationConfig(
            num_bits=8, granularity=qtyping.QuantGranularity.CHANNELWISE
        )
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=weights,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        quantization.update_quantization_recipe(".*", names.DEPTHWISE_CONV_2D, op_config=config)
    ranges = None
    if quantization.need_calibration:
        ranges = _ranges(quantization, content, used)
    return bytes(quantization.quantize(ranges).quantized_model)


def _ranges(quantization: Any, content: bytes, used: Arrays) -> dict[str, Any]:
    """Return the ranges of all activations. The quantizer's own are moving averages, which cut off
    a part: on a small network int8 lost 41 % of its outputs' variance by that, else 1.6 %."""
    from ai_edge_litert.interpreter import Interpreter

    key, *_ = (interpreter := Interpreter(model_content=content)).get_signature_list()
    inputs = interpreter.get_signature_runner(key).get_input_details()
    first = {name: used[name][0].reshape(d["shape"]) for name, d in inputs.items()}
    ranges: dict[str, Any] = quantization.calibrate({key: [first]})
    recording = open_interpreter(content)
    indices = {d["name"]: d["index"] for d in recording.get_tensor_details()}
    chosen = [name for name, range_ in ranges.items() if np.size(range_.get("min", ())) == 1]
    for _ in run(recording, content, used, min(len(values) for values in used.values())):
        for name in chosen:
            values, range_ = recording.get_tensor(indices[name]), ranges[name]
            range_["min"] = np.minimum(range_["min"], values.min())
            range_["max"] = np.maximum(range_["max"], values.max())
    return ranges


def main(model: str, samples: str, scheme: str, target: str) -> None:
    files = Path(model), Path(samples)
    print_json_reply(
        lambda: _quantize(*files, cast(DenseScheme, scheme), Path(target)), f"{model}: "
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
