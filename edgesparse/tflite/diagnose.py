"""Why a .tflite file does not answer like its Keras model, where that can be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.activations import uses
from edgesparse.tflite.format.graph import label
from edgesparse.tflite.format.signature import dequantize, quantize

SAMPLES = 8
"""So many are compared, layer by layer."""
_DROWNED = 50.0
"""A feature whose range is so many times the usual one leaves the others few of 256 steps."""
_PARTS = 0.25
"""Of its range, from which on a layer's outputs count as others."""


def diagnose(content: bytes, model: tf.keras.Model, x: Sequence[np.ndarray]) -> str | None:
    """What is wrong, in a sentence; None where nothing stands out.

    Args:
        x: samples for each of the model's inputs, [n, ...].
    """
    x = [values[:SAMPLES] for values in x]
    interpreter = _opened(content)
    layers = _layers(model, x)
    found = _no_number(layers, x) or _drowned(interpreter, x) or _flat(interpreter, model, x)
    return found or _parting(interpreter, model, layers, x)


def _opened(content: bytes) -> Any:
    lite = tf.lite
    resolver = lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = lite.Interpreter(
        model_content=content,
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def _layers(model: tf.keras.Model, x: Sequence[np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Each layer's kind and output [n, ...], by its name, in the model's order."""
    chosen = [
        layer
        for layer in model.layers
        # Of the model's own graph: a layer may be in the one that its user has built, too.
        if len(nodes := uses(model, layer)) == 1 and not isinstance(nodes[0].outputs, list | tuple)
    ]
    watching = tf.keras.Model(model.inputs, [uses(model, x)[0].outputs for x in chosen])
    outputs = watching(x[0] if len(x) == 1 else list(x), training=False)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {
        layer.name: (type(layer).__name__, np.asarray(output))
        for layer, output in zip(chosen, outputs, strict=True)
    }


def _no_number(layers: dict[str, tuple[str, np.ndarray]], x: Sequence[np.ndarray]) -> str | None:
    if any(values.dtype.kind == "f" and not np.isfinite(values).all() for values in x):
        return "the data has values that are no numbers"
    for name, (kind, values) in layers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"its layer {name} ({kind}) gives values that are no numbers"
    return None


def _drowned(interpreter: Any, x: Sequence[np.ndarray]) -> str | None:
    """Features of one input that share a scale made for another."""
    for details, values in zip(interpreter.get_input_details(), x, strict=False):
        scale = details["quantization"][0]
        if not scale or values.dtype.kind != "f" or values.ndim < 2 or values.shape[-1] < 2:
            continue
        ranges = np.ptp(values.reshape(-1, values.shape[-1]), axis=0)
        usual, place = float(np.median(ranges)), int(ranges.argmax())
        if usual and ranges[place] > _DROWNED * usual and scale > usual / 16:
            return (
                f"its input has one step for all features, {scale:.3g}: feature {place} ranges "
                f"over {ranges[place]:.3g}, most over {usual:.3g}, which leaves those "
                f"{usual / scale:.1f} steps; scale the features in the data, or by a Normalization "
                "layer"
            )
    return None


def _flat(interpreter: Any, model: tf.keras.Model, x: Sequence[np.ndarray]) -> str | None:
    """Outputs that are all alike: the network has not learned to tell samples apart."""
    answers = model(x[0] if len(x) == 1 else list(x), training=False)
    answers = answers if isinstance(answers, list | tuple) else [answers]
    for details, values in zip(interpreter.get_output_details(), answers, strict=False):
        step = details["quantization"][0]
        spread = float(np.ptp(np.asarray(values)))
        if step and spread < 2 * step:
            return (
                f"its outputs differ by {spread:.2g} over the golden samples, and a step of its "
                f"numbers is {step:.2g}: a network that has not learned yet; train it longer"
            )
    return None


def _parting(
    interpreter: Any,
    model: tf.keras.Model,
    layers: dict[str, tuple[str, np.ndarray]],
    x: Sequence[np.ndarray],
) -> str | None:
    """The first layer whose outputs are others than Keras'."""
    worst = dict.fromkeys(layers, 0.0)
    steps: dict[str, float] = {}
    known = {details["index"]: details for details in interpreter.get_tensor_details()}
    for number in range(len(x[0])):
        for details, values in zip(interpreter.get_input_details(), x, strict=True):
            value = quantize(values[number : number + 1], details)
            interpreter.set_tensor(details["index"], value)
        interpreter.invoke()
        for details in known.values():
            name = label(details["name"])
            if name not in layers:
                continue
            expected = layers[name][1][number]
            if expected.size != np.prod(details["shape"]) or expected.dtype.kind != "f":
                continue
            try:
                found = dequantize(interpreter.get_tensor(details["index"]), details)
            except ValueError:
                continue
            spread = float(np.ptp(layers[name][1])) or 1.0
            error = float(np.abs(found.reshape(-1) - expected.reshape(-1)).max()) / spread
            worst[name] = max(worst[name], error)
            steps[name] = details["quantization"][0] / spread
    for name, error in worst.items():
        if error > _PARTS:
            kind = layers[name][0]
            step = f"; one step of its numbers is {steps[name]:.1%} of it" if steps[name] else ""
            return f"outputs part at layer {name} ({kind}): {error:.0%} of its range off{step}"
    return None
