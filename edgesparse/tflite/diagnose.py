"""Finds why a Keras model has no .tflite file with its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.activations import nodes_of
from edgesparse.models.files.equivalence import TOLERANCE, largest_difference
from edgesparse.spec.errors import UsageError, cause_of
from edgesparse.tflite import operator_outputs
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.flatbuffer import label
from edgesparse.tflite.format.signature import dequantize, quantize

SAMPLES = 8
"""Samples that are compared layer by layer."""
_DOMINANT = 50.0
"""A feature whose range is this many times the median leaves the others a few of 256 steps."""
_HALF_VARIES = 0.01
"""Outputs that vary by less than this share of their magnitude leave half precision, whose steps
are 2**-11 of a value, too few of them."""
_DEVIATES = 0.25
"""The share of its range by which a layer's outputs deviate that is reported as the cause."""


def diagnose(
    content: bytes, model: tf.keras.Model, x: Sequence[np.ndarray], *, trained: bool = True
) -> str | None:
    """Describe the likely cause in a sentence; None where nothing stands out.

    Args:
        x: samples for each of the model's inputs, [n, ...].
        trained: whether the model was trained on the data, by the pipeline.
    """
    x = [values[:SAMPLES] for values in x]
    interpreter = _opened(content)
    layers = _layers(model, x)
    return (
        _not_finite(layers, x)
        or _dominated(interpreter, x)
        or _constant(interpreter, model, x, trained)
        or _deviating_layer(interpreter, model, layers, x)
    )


def require_layout(model: tf.keras.Model, x: Sequence[np.ndarray]) -> None:
    """Check that a model with channels first (NCHW) can be trained, and that its .tflite file has
    its outputs: TensorFlow trains few such layers on some CPUs, and the converter puts most of
    them between transpositions.

    Args:
        x: samples for each of the model's inputs, [n, ...].

    Raises:
        UsageError: it cannot; the message names the first such layer.
    """
    names = [
        layer.name
        for layer in model._flatten_layers()
        if getattr(layer, "data_format", None) == "channels_first"
    ]
    if not names:
        return
    try:
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(x[0] if len(x) == 1 else list(x)))
            total = tf.add_n([tf.reduce_sum(tf.cast(output, tf.float32)) for output in outputs])
        tape.gradient(total, model.trainable_variables)
        wrong = _differs(convert(model, "f32", x), model, x)
        reason = "the outputs of its .tflite file differ" if wrong else ""
    except Exception as error:  # TensorFlow's, the converter's or the runtime's.
        reason = cause_of(error)
    if reason:
        raise UsageError(
            f"layer {names[0]} takes channels first (NCHW): {reason}; build it with "
            'data_format="channels_last", and reorder the data to [height, width, channels]: '
            "np.moveaxis(x, 1, -1)"
        )


def _differs(content: bytes, model: tf.keras.Model, x: Sequence[np.ndarray]) -> bool:
    """Compare the outputs of a float file with the model's; a file can have them in any order."""
    interpreter = _opened(content)
    details = interpreter.get_output_details()
    samples = dict(zip(map(str, model.input_names), x, strict=True))
    rows = [[interpreter.get_tensor(output["index"])[0] for output in details]
            for _ in operator_outputs.run(interpreter, content, samples, SAMPLES)]  # fmt: skip
    actual = [np.stack(values) for values in zip(*rows, strict=True)]
    inputs = x[0] if len(x) == 1 else list(x)
    expected = [np.asarray(v) for v in tf.nest.flatten(model(inputs, training=False))]
    return any(
        all(largest_difference({"": e}, {"": a}) > TOLERANCE for a in actual) for e in expected
    )


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
    """Map each layer's name to its kind and output [n, ...], in the model's order."""
    chosen = [
        layer
        for layer in model.layers
        # Of the model's own graph: a layer may be in the one that its user has built, too.
        if len(nodes := nodes_of(model, layer)) == 1
        and not isinstance(nodes[0].outputs, list | tuple)
    ]
    probe = tf.keras.Model(model.inputs, [nodes_of(model, layer)[0].outputs for layer in chosen])
    outputs = probe(x[0] if len(x) == 1 else list(x), training=False)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {
        layer.name: (type(layer).__name__, np.asarray(output))
        for layer, output in zip(chosen, outputs, strict=True)
    }


def _not_finite(layers: dict[str, tuple[str, np.ndarray]], x: Sequence[np.ndarray]) -> str | None:
    if any(values.dtype.kind == "f" and not np.isfinite(values).all() for values in x):
        return "the data contains NaN or infinity"
    for name, (kind, values) in layers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"layer {name} ({kind}) outputs NaN or infinity"
    return None


def _dominated(interpreter: Any, x: Sequence[np.ndarray]) -> str | None:
    """Find an input whose scale fits a single feature of it."""
    for details, values in zip(interpreter.get_input_details(), x, strict=False):
        scale = details["quantization"][0]
        if not scale or values.dtype.kind != "f" or values.ndim < 2 or values.shape[-1] < 2:
            continue
        ranges = np.ptp(values.reshape(-1, values.shape[-1]), axis=0)
        median, feature = float(np.median(ranges)), int(ranges.argmax())
        if median and ranges[feature] > _DOMINANT * median and scale > median / 16:
            return (
                f"all features of its input share the scale {scale:.3g}: feature {feature} has a "
                f"range of {ranges[feature]:.3g}, most have {median:.3g}, which leaves those "
                f"{median / scale:.1f} steps; scale the features in the data, or add a "
                "Normalization layer"
            )
    return None


def _constant(
    interpreter: Any, model: tf.keras.Model, x: Sequence[np.ndarray], trained: bool
) -> str | None:
    """Find an output that hardly depends on the sample."""
    outputs = model(x[0] if len(x) == 1 else list(x), training=False)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    half = any(details["dtype"] == np.float16 for details in interpreter.get_tensor_details())
    for details, values in zip(interpreter.get_output_details(), outputs, strict=False):
        step = details["quantization"][0]
        values = np.asarray(values)
        spread, size = float(np.ptp(values)), float(np.abs(values).max())
        varies = f"its outputs vary by {spread:.2g} over the golden samples, and "
        if step and spread < 2 * step:
            cause = (
                "the network has not learned yet; train it longer"
                if trained
                else "the model hardly depends on the samples; scale them as in its training"
            )
            return f"{varies}a quantization step is {step:.2g}: {cause}"
        if half and not step and spread < _HALF_VARIES * size:
            return (
                f"{varies}their largest magnitude is {size:.2g}: half precision keeps three "
                "digits; scale the samples as in the model's training, or its outputs"
            )
    return None


def _deviating_layer(
    interpreter: Any,
    model: tf.keras.Model,
    layers: dict[str, tuple[str, np.ndarray]],
    x: Sequence[np.ndarray],
) -> str | None:
    """Find the first layer whose outputs deviate from Keras'."""
    worst = dict.fromkeys(layers, 0.0)
    steps: dict[str, float] = {}
    tensors = interpreter.get_tensor_details()
    for number in range(len(x[0])):
        for details, values in zip(interpreter.get_input_details(), x, strict=True):
            value = quantize(values[number : number + 1], details)
            interpreter.set_tensor(details["index"], value)
        interpreter.invoke()
        for details in tensors:
            name = label(details["name"])
            if name not in layers:
                continue
            expected = layers[name][1][number]
            if expected.size != np.prod(details["shape"]) or expected.dtype.kind != "f":
                continue
            try:
                values = dequantize(interpreter.get_tensor(details["index"]), details)
            except ValueError:
                continue
            spread = float(np.ptp(layers[name][1])) or 1.0
            error = float(np.abs(values.reshape(-1) - expected.reshape(-1)).max()) / spread
            worst[name] = max(worst[name], error)
            steps[name] = details["quantization"][0] / spread
    for name, error in worst.items():
        if error > _DEVIATES:
            kind = layers[name][0]
            step = f"; a quantization step is {steps[name]:.1%} of it" if steps[name] else ""
            return f"layer {name} ({kind}) deviates from Keras by {error:.0%} of its range{step}"
    return None
