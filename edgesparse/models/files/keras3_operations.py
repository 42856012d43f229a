"""Keras 3 parts that differ from Keras 2: operations on tensors, activations, arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from edgesparse.spec.errors import UsageError

Operation = Callable[..., Any]
PACKAGE = "edgesparse"
"""Package under which the activations below are registered with Keras 2."""
NO_EFFECT: tuple[Any, ...] = (None, False, [], {}, "channels_last")
"""Values of arguments that Keras 2 can ignore."""
LAYER_ARGUMENTS = {"LeakyReLU": {"negative_slope": "alpha"}}
"""Keras 2's names of arguments by Keras 3's, by layer."""


def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6; Keras 2 has clip(0.2 x + 0.5, 0, 1) by this name."""
    return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def hard_silu(x: Any) -> Any:
    """x relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


def hard_tanh(x: Any) -> Any:
    """x within -1 and 1."""
    return tf.clip_by_value(x, -1.0, 1.0)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)."""
    return tf.maximum(x, 0.0) + alpha * (tf.exp(tf.minimum(x, 0.0) / alpha) - 1.0)


def squareplus(x: Any, b: float = 4) -> Any:
    """(x + sqrt(x^2 + b)) / 2."""
    return (x + tf.sqrt(tf.square(x) + b)) * 0.5


def mish(x: Any) -> Any:
    """x tanh(softplus(x))."""
    return x * tf.tanh(tf.nn.softplus(x))


def tanh_shrink(x: Any) -> Any:
    """x - tanh(x)."""
    return x - tf.tanh(x)


def _registered(function: Operation) -> str:
    tf.keras.utils.register_keras_serializable(PACKAGE)(function)
    return f"{PACKAGE}>{function.__name__}"


_REGISTERED = (hard_sigmoid, hard_silu, hard_tanh, celu, squareplus, tanh_shrink)
ACTIVATIONS = {function.__name__: _registered(function) for function in _REGISTERED}
"""Registered names, by Keras 3's, of activations that Keras 2 lacks or computes differently."""
ACTIVATIONS["hard_swish"] = ACTIVATIONS["hard_silu"]


def _transpose(x: Any, axes: Any = None) -> Any:
    return tf.transpose(x, axes)


def _swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    order = list(range(len(x.shape)))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return tf.transpose(x, order)


def _moveaxis(x: Any, source: Any, destination: Any) -> Any:
    count = len(x.shape)
    moved = [axis % count for axis in tf.nest.flatten(source)]
    order = [axis for axis in range(count) if axis not in moved]
    for position, axis in sorted(
        zip([axis % count for axis in tf.nest.flatten(destination)], moved, strict=True)
    ):
        order.insert(position, axis)
    return tf.transpose(x, order)


def _pad(x: Any, constant_values: Any = None, *, pad_width: Any, mode: str = "constant") -> Any:
    return tf.pad(x, pad_width, mode.upper(), constant_values or 0)


def _normalize(x: Any, axis: int = -1, order: int = 2, epsilon: float = 1e-12) -> Any:
    if order != 2:
        raise UsageError(f"operation keras.ops Normalize has order={order}; only 2 is supported")
    return tf.math.l2_normalize(x, axis, epsilon**2)


def _flip(x: Any, axis: Any = None) -> Any:
    return tf.reverse(x, tf.nest.flatten(range(len(x.shape)) if axis is None else axis))


def _get_item(x: Any, key: Any) -> Any:
    return x[tuple(key) if isinstance(key, list) else key]


def _take(x: Any, indices: Any, axis: int | None = None) -> Any:
    return tf.gather(tf.reshape(x, [-1]) if axis is None else x, indices, axis=axis or 0)


def _tile(x: Any, repeats: Any) -> Any:
    repeats = tf.nest.flatten(repeats)
    return tf.tile(x, [1] * (len(x.shape) - len(repeats)) + repeats)


def _resize(
    images: Any,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
) -> Any:
    return tf.image.resize(images, size, interpolation, antialias=antialias)


_REDUCTIONS = {
    "All": tf.reduce_all, "Any": tf.reduce_any, "Amax": tf.reduce_max, "Amin": tf.reduce_min,
    "Logsumexp": tf.reduce_logsumexp, "Max": tf.reduce_max, "Mean": tf.reduce_mean,
    "Min": tf.reduce_min, "Prod": tf.reduce_prod, "Std": tf.math.reduce_std,
    "Sum": tf.reduce_sum, "Var": tf.math.reduce_variance,
}  # fmt: skip
_BINARY = {
    "Add": tf.add, "Divide": tf.divide, "Equal": tf.equal, "FloorDivide": tf.math.floordiv,
    "Greater": tf.greater, "GreaterEqual": tf.greater_equal, "Less": tf.less,
    "LessEqual": tf.less_equal, "Maximum": tf.maximum, "Minimum": tf.minimum,
    "Mod": tf.math.floormod, "Multiply": tf.multiply, "NotEqual": tf.not_equal, "Power": tf.pow,
    "Subtract": tf.subtract, "TrueDivide": tf.divide, "Where": tf.where,
}  # fmt: skip
_OTHERS: dict[str, Operation] = {
    "Abs": tf.abs, "Absolute": tf.abs, "Argmax": tf.argmax, "Argmin": tf.argmin, "Cast": tf.cast,
    "Ceil": tf.math.ceil, "Celu": celu, "Clip": lambda x, x_min, x_max: tf.clip_by_value(
        x, x_min, x_max), "Concatenate": lambda xs, axis=-1: tf.concat(xs, axis), "Cos": tf.cos,
    "Cumsum": tf.cumsum, "Einsum": lambda *xs, subscripts: tf.einsum(subscripts, *xs),
    "Elu": lambda x, alpha=1.0: tf.keras.activations.elu(x, alpha), "Erf": tf.math.erf,
    "Exp": tf.exp, "ExpandDims": tf.expand_dims, "Flip": _flip, "Floor": tf.floor,
    "Gelu": tf.nn.gelu, "GetItem": _get_item, "HardSigmoid": hard_sigmoid, "HardSilu": hard_silu,
    "HardTanh": hard_tanh,
    "LeakyRelu": lambda x, negative_slope=0.2: tf.nn.leaky_relu(x, negative_slope),
    "Log": tf.math.log, "Log1p": tf.math.log1p, "LogSigmoid": tf.math.log_sigmoid,
    "LogSoftmax": tf.nn.log_softmax, "LogicalAnd": tf.logical_and, "LogicalNot": tf.logical_not,
    "LogicalOr": tf.logical_or, "Matmul": tf.matmul, "Mish": mish, "Moveaxis": _moveaxis,
    "Negative": tf.negative, "Normalize": _normalize,
    "OneHot": lambda x, num_classes, axis=-1, dtype=None: tf.one_hot(
        x, num_classes, axis=axis, dtype=dtype or "float32"),
    "Pad": _pad, "Reciprocal": tf.math.reciprocal, "Relu": tf.nn.relu, "Relu6": tf.nn.relu6,
    "Repeat": tf.repeat, "Reshape": lambda x, newshape: tf.reshape(x, newshape),
    "Resize": _resize, "Roll": tf.roll, "Round": tf.round, "Rsqrt": tf.math.rsqrt,
    "Selu": tf.nn.selu, "Sigmoid": tf.sigmoid, "Sign": tf.sign, "Silu": tf.nn.silu, "Sin": tf.sin,
    "Softmax": tf.nn.softmax, "Softplus": tf.nn.softplus, "Softsign": tf.nn.softsign,
    "Split": lambda x, indices_or_sections, axis=0: tf.split(x, indices_or_sections, axis),
    "Sqrt": tf.sqrt, "Square": tf.square, "Squareplus": squareplus, "Squeeze": tf.squeeze,
    "Stack": lambda xs, axis=0: tf.stack(xs, axis), "StopGradient": tf.stop_gradient,
    "Swapaxes": _swapaxes, "Take": _take, "Tanh": tf.tanh, "TanhShrink": tanh_shrink,
    "Tile": _tile, "Transpose": _transpose,
}  # fmt: skip
_ALL: dict[str, Operation] = {**_REDUCTIONS, **_BINARY, **_OTHERS}


def operation(kind: str, config: Mapping[str, Any]) -> Operation:
    """Translate an operation of Keras 3 on tensors to TensorFlow functions.

    Args:
        kind: its class in keras.ops.
        config: its arguments, its name among them.

    Raises:
        UsageError: the operation or one of its arguments has no translation.
    """
    function = _ALL.get(kind)
    if function is None:
        raise UsageError(
            f"operation {config.get('name')} (keras.ops {kind}) has no translation to Keras 2; "
            "name a function that builds the model"
        )
    parameters = inspect.signature(function).parameters
    named = {}
    for key, value in config.items():
        if key == "name":
            continue
        if key in parameters and value is not None:
            named[key] = value
        elif key not in ("dtype", "trainable") and value not in NO_EFFECT:
            raise UsageError(
                f"operation {config.get('name')} (keras.ops {kind}) has {key}={value!r}, which "
                "has no translation to Keras 2; name a function that builds the model"
            )

    def call(*arguments: Any, **others: Any) -> Any:
        if kind in _BINARY:
            arguments = tuple(_match_dtypes(arguments))
        return function(*arguments, **{**named, **others})

    return call


def _match_dtypes(arguments: tuple[Any, ...]) -> list[Any]:
    """Convert integers beside float tensors: TensorFlow computes 1 - x only for integer x."""
    floating = any(getattr(getattr(x, "dtype", None), "is_floating", False) for x in arguments)
    return [float(x) if floating and type(x) is int else x for x in arguments]
