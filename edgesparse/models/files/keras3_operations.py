"""What Keras 3 calls differently from Keras 2: operations on tensors, activations, arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from edgesparse.spec.errors import UsageError

Operation = Callable[..., Any]
PACKAGE = "edgesparse"
"""Of the activations below, where Keras 2 saves a model that has them."""
SAYS_NOTHING: tuple[Any, ...] = (None, False, [], {}, "channels_last")
"""Values of arguments that may be left out."""
LAYER_ARGUMENTS = {"LeakyReLU": {"negative_slope": "alpha"}}
"""By layer: Keras 3's names of arguments, and Keras 2's."""


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


_OWN = (hard_sigmoid, hard_silu, hard_tanh, celu, squareplus, tanh_shrink)
ACTIVATIONS = {function.__name__: _registered(function) for function in _OWN}
"""By Keras 3's names: activations that Keras 2 lacks or computes differently, as it finds them."""
ACTIVATIONS["hard_swish"] = ACTIVATIONS["hard_silu"]


def _transposed(x: Any, axes: Any = None) -> Any:
    return tf.transpose(x, axes)


def _swapped(x: Any, axis1: int, axis2: int) -> Any:
    order = list(range(len(x.shape)))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return tf.transpose(x, order)


def _moved(x: Any, source: Any, destination: Any) -> Any:
    count = len(x.shape)
    moved = [axis % count for axis in tf.nest.flatten(source)]
    order = [axis for axis in range(count) if axis not in moved]
    for place, axis in sorted(
        zip([axis % count for axis in tf.nest.flatten(destination)], moved, strict=True)
    ):
        order.insert(place, axis)
    return tf.transpose(x, order)


def _padded(x: Any, constant_values: Any = None, *, pad_width: Any, mode: str = "constant") -> Any:
    return tf.pad(x, pad_width, mode.upper(), constant_values or 0)


def _normalized(x: Any, axis: int = -1, order: int = 2, epsilon: float = 1e-12) -> Any:
    if order != 2:
        raise UsageError(f"its operation keras.ops Normalize has order={order}; only 2 is known")
    return tf.math.l2_normalize(x, axis, epsilon**2)


def _flipped(x: Any, axis: Any = None) -> Any:
    return tf.reverse(x, tf.nest.flatten(range(len(x.shape)) if axis is None else axis))


def _item(x: Any, key: Any) -> Any:
    return x[tuple(key) if isinstance(key, list) else key]


def _taken(x: Any, indices: Any, axis: int | None = None) -> Any:
    return tf.gather(tf.reshape(x, [-1]) if axis is None else x, indices, axis=axis or 0)


def _tiled(x: Any, repeats: Any) -> Any:
    repeats = tf.nest.flatten(repeats)
    return tf.tile(x, [1] * (len(x.shape) - len(repeats)) + repeats)


def _resized(
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
    "Exp": tf.exp, "ExpandDims": tf.expand_dims, "Flip": _flipped, "Floor": tf.floor,
    "Gelu": tf.nn.gelu, "GetItem": _item, "HardSigmoid": hard_sigmoid, "HardSilu": hard_silu,
    "HardTanh": hard_tanh,
    "LeakyRelu": lambda x, negative_slope=0.2: tf.nn.leaky_relu(x, negative_slope),
    "Log": tf.math.log, "Log1p": tf.math.log1p, "LogSigmoid": tf.math.log_sigmoid,
    "LogSoftmax": tf.nn.log_softmax, "LogicalAnd": tf.logical_and, "LogicalNot": tf.logical_not,
    "LogicalOr": tf.logical_or, "Matmul": tf.matmul, "Mish": mish, "Moveaxis": _moved,
    "Negative": tf.negative, "Normalize": _normalized,
    "OneHot": lambda x, num_classes, axis=-1, dtype=None: tf.one_hot(
        x, num_classes, axis=axis, dtype=dtype or "float32"),
    "Pad": _padded, "Reciprocal": tf.math.reciprocal, "Relu": tf.nn.relu, "Relu6": tf.nn.relu6,
    "Repeat": tf.repeat, "Reshape": lambda x, newshape: tf.reshape(x, newshape),
    "Resize": _resized, "Roll": tf.roll, "Round": tf.round, "Rsqrt": tf.math.rsqrt,
    "Selu": tf.nn.selu, "Sigmoid": tf.sigmoid, "Sign": tf.sign, "Silu": tf.nn.silu, "Sin": tf.sin,
    "Softmax": tf.nn.softmax, "Softplus": tf.nn.softplus, "Softsign": tf.nn.softsign,
    "Split": lambda x, indices_or_sections, axis=0: tf.split(x, indices_or_sections, axis),
    "Sqrt": tf.sqrt, "Square": tf.square, "Squareplus": squareplus, "Squeeze": tf.squeeze,
    "Stack": lambda xs, axis=0: tf.stack(xs, axis), "StopGradient": tf.stop_gradient,
    "Swapaxes": _swapped, "Take": _taken, "Tanh": tf.tanh, "TanhShrink": tanh_shrink,
    "Tile": _tiled, "Transpose": _transposed,
}  # fmt: skip
_ALL: dict[str, Operation] = {**_REDUCTIONS, **_BINARY, **_OTHERS}


def operation(kind: str, config: Mapping[str, Any]) -> Operation:
    """One of Keras 3's operations on tensors, by TensorFlow's functions.

    Args:
        kind: its class in keras.ops.
        config: its arguments, its name among them.

    Raises:
        UsageError: there is no translation of it, or of one of its arguments.
    """
    function = _ALL.get(kind)
    if function is None:
        raise UsageError(
            f"its operation {config.get('name')} (keras.ops {kind}) has no translation to Keras 2; "
            "name a function that builds the model"
        )
    known = inspect.signature(function).parameters
    named = {}
    for key, value in config.items():
        if key == "name":
            continue
        if key in known and value is not None:
            named[key] = value
        elif key not in ("dtype", "trainable") and value not in SAYS_NOTHING:
            raise UsageError(
                f"its operation {config.get('name')} (keras.ops {kind}) has {key}={value!r}, which "
                "has no translation to Keras 2; name a function that builds the model"
            )

    def called(*arguments: Any, **others: Any) -> Any:
        if kind in _BINARY:
            arguments = tuple(_alike(arguments))
        return function(*arguments, **{**named, **others})

    return called


def _alike(arguments: tuple[Any, ...]) -> list[Any]:
    """Whole numbers as the tensors beside them: TensorFlow takes 1 - x only where x is whole."""
    floating = any(getattr(getattr(x, "dtype", None), "is_floating", False) for x in arguments)
    return [float(x) if floating and type(x) is int else x for x in arguments]
