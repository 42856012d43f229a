"""Channel behaviour of kinds of layers: the axes of weights along channels, and the reasons why
some layers cannot be followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Axes = list[dict[int, str]]

_PLAIN = (
    "Activation", "ActivityRegularization", "AlphaDropout", "AveragePooling1D",
    "AveragePooling2D", "AveragePooling3D", "Cropping1D", "Cropping2D", "Cropping3D", "Dropout",
    "ELU", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
    "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
    "LeakyReLU", "Masking", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "ReLU", "RepeatVector",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ThresholdedReLU", "UpSampling1D",
    "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
)  # fmt: skip
"""Layers without weights that treat every channel alike."""
MERGES = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
_OPERATIONS = (
    "__operators__.add", "math.add", "math.divide", "math.multiply", "math.sigmoid",
    "math.subtract", "math.tanh", "math.truediv", "nn.elu", "nn.gelu", "nn.leaky_relu", "nn.relu",
    "nn.relu6", "nn.silu", "nn.swish",
)  # fmt: skip
"""TensorFlow functions called on Keras tensors that treat every channel alike."""
_REDUCTIONS = ("math.reduce_max", "math.reduce_mean", "math.reduce_min", "math.reduce_sum")
_MIXING_ACTIVATIONS = ("softmax", "log_softmax")
_CELLS = ("GRUCell", "LSTMCell", "SimpleRNNCell")


@dataclass(frozen=True)
class LayerChannels:
    """A layer's channels, each as the index of its atom.

    `inputs` int [input channels], `outputs` int [output channels]; `positions` is the number of
    applications of its kernel per sample, and `products` the number of multiply-accumulates between
    activations; `heads` int [heads] are those of an attention.
    """

    layer: Any
    inputs: np.ndarray
    outputs: np.ndarray
    positions: int
    rows: Axes | None = None
    """Axes of an unknown layer, determined by probing."""
    normalizer: Any = None
    """The batch normalization right behind it, which a converter folds into its kernel."""
    heads: np.ndarray | None = None
    products: int = 0

    @property
    def produces(self) -> bool:
        """True where its number of output channels can be chosen."""
        return self.rows is None and is_producer(self.layer)

    @property
    def axes(self) -> Axes:
        """Axes of each weight along channels: "in", "out", "middle", between the halves of a
        separable convolution, "grouped", a group's inputs, "gates", a recurrent layer's units once
        for each gate, or "heads"."""
        return axes_of(self.layer) if self.rows is None else self.rows

    def masks(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Return the channels to keep, by the names in `axes`; `kept` is bool [atoms]."""
        layer, layers = inner(self.layer), tf.keras.layers
        masks = {"in": kept[self.inputs], "out": kept[self.outputs]}
        if self.rows is not None:
            return masks
        if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
            masks["middle"] = np.repeat(masks["in"], layer.depth_multiplier)
        if is_recurrent(layer):
            gates = layer.weights[0].shape[-1] // len(self.outputs)
            masks["gates"] = np.tile(masks["out"], gates)
        if self.heads is not None:
            masks["heads"] = kept[self.heads]
        if groups_of(layer) > 1:
            masks["grouped"] = self._by_group(kept).any(axis=0)
        return masks

    def _by_group(self, kept: np.ndarray) -> np.ndarray:
        """Return the inputs to keep, bool [groups, inputs of each]: the same of each, or whole
        groups."""
        return np.asarray(kept[self.inputs].reshape(groups_of(inner(self.layer)), -1))

    def groups(self, kept: np.ndarray) -> int:
        """Return the number of remaining groups of its convolution."""
        return int(self._by_group(kept).any(axis=1).sum())


def positions_of(node: Any) -> int:
    """Return the number of applications of a layer's kernel per sample."""
    layer = inner(node.layer)
    kind = type(layer).__name__
    if kind == "Embedding":
        return 0  # Rows are looked up.
    if kind.startswith("LocallyConnected"):
        return 1  # It has a kernel for each position.
    before = "Transpose" in kind or is_recurrent(layer)
    shape = (node.keras_inputs[0] if before else tf.nest.flatten(node.outputs)[0]).shape
    return _places(shape)


def products_of(node: Any) -> int:
    """Return the multiply-accumulates of an attention between activations, per sample."""
    layer, inputs = inner(node.layer), node.keras_inputs
    kind = type(layer).__name__
    if kind == "MultiHeadAttention":
        config = layer.get_config()
        width = config["num_heads"] * (
            config["key_dim"] + (config["value_dim"] or config["key_dim"])
        )
    elif kind in ("Attention", "AdditiveAttention") and len(inputs) > 1:
        scored = inputs[0].shape[-1] if kind == "Attention" else 0
        width = scored + inputs[1].shape[-1]
    else:
        return 0
    return _places(inputs[0].shape) * _places(inputs[-1].shape) * int(width)


def _places(shape: Any) -> int:
    return int(np.prod([size or 1 for size in shape[1:-1]]))


def inner(layer: Any) -> Any:
    """Return the layer within a TimeDistributed layer; else the layer itself."""
    return layer.layer if isinstance(layer, tf.keras.layers.TimeDistributed) else layer


def groups_of(layer: Any) -> int:
    """Return the number of groups of a convolution; 1 for any other layer."""
    layers = tf.keras.layers
    plain = isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D)
    return int(getattr(layer, "groups", 1)) if plain and is_producer(layer) else 1


def is_recurrent(layer: Any) -> bool:
    """Return True for a layer of recurrent units, in one or two directions."""
    layers = tf.keras.layers
    if type(layer) is layers.Bidirectional:
        return is_recurrent(layer.layer) and type(layer.layer) is type(layer.backward_layer)
    if type(layer) is layers.RNN:
        return type(layer.cell).__name__ in _CELLS
    kinds = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
    return type(layer) in (layers.GRU, layers.LSTM, layers.SimpleRNN, *kinds)


def is_producer(layer: Any) -> bool:
    """Return True for a layer whose number of output channels can be chosen."""
    layer, layers = inner(layer), tf.keras.layers
    kinds = (
        layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv1D,
        layers.SeparableConv2D, layers.Conv1DTranspose, layers.Conv2DTranspose,
        layers.Conv3DTranspose, layers.Dense, layers.Embedding, layers.EinsumDense,
        layers.MultiHeadAttention,
    )  # fmt: skip
    return isinstance(layer, kinds) or is_recurrent(layer)


def axes_of(layer: Any) -> Axes:
    """Return LayerChannels.axes of a layer that can be followed."""
    layer, layers = inner(layer), tf.keras.layers
    weights = layer.weights
    kernels: Axes = []
    if is_recurrent(layer):
        # Convolutional ones have their window's axes before these two. Two directions follow one
        # another.
        return [
            {0: "gates"} if len(w.shape) == 1 else
            {len(w.shape) - 2: "out" if "recurrent" in w.name else "in", len(w.shape) - 1: "gates"}
            if "bias" not in w.name else {len(w.shape) - 1: "gates"}
            for w in weights
        ]  # fmt: skip
    if isinstance(layer, layers.MultiHeadAttention):
        return [_attention_axes(w) for w in weights]
    if isinstance(layer, layers.EinsumDense):
        return _einsum_axes(layer) or []
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        rank = len(weights[0].shape)
        kernels = [{rank - 2: "in"}, {rank - 2: "middle", rank - 1: "out"}]
    elif isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        kernels = [{len(weights[0].shape) - 2: "in"}]
    elif "Transpose" in type(layer).__name__:
        rank = len(weights[0].shape)
        kernels = [{rank - 2: "out", rank - 1: "in"}]
    elif isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D):
        rank = len(weights[0].shape)
        kernels = [{rank - 2: "grouped" if layer.groups > 1 else "in", rank - 1: "out"}]
    elif isinstance(layer, layers.Dense):
        kernels = [{0: "in", 1: "out"}]
    elif isinstance(layer, layers.Embedding):
        kernels = [{1: "out"}]
    # What follows runs along outputs: a bias, a batch normalization's statistics.
    return [*kernels, *({len(w.shape) - 1: "out"} for w in weights[len(kernels) :])]


def _attention_axes(weight: Any) -> dict[int, str]:
    """Return the axes of an attention's weight: [inputs, heads, dim] or [heads, dim]; of the output
    projection [heads, dim, outputs] or [outputs]."""
    rank = len(weight.shape)
    if "attention_output" in weight.name:
        return {0: "heads", rank - 1: "out"} if rank > 1 else {0: "out"}
    return {0: "in", 1: "heads"} if rank > 2 else {0: "heads"}


def _einsum_axes(layer: Any) -> Axes | None:
    """Return the axes of an EinsumDense layer by the last letters of its equation; None where they
    do not determine them."""
    operands, _, answer = layer.equation.replace(" ", "").partition("->")
    source, _, kernel = operands.partition(",")
    if not source or not answer or "..." in kernel:
        return None
    first, last = source[-1], answer[-1]
    if first not in kernel or first in answer or last not in kernel or last in source:
        return None
    axes: Axes = [{kernel.index(first): "in", kernel.index(last): "out"}]
    if len(layer.weights) > 1:
        bias = layer.weights[1]
        axes.append(
            {len(bias.shape) - 1: "out"}
            if bias.shape[-1] == layer.kernel.shape[kernel.index(last)]
            else {}
        )
    return axes


def resized(
    layer: Any, config: dict[str, Any], width: int, heads: int | None, groups: int
) -> dict[str, Any]:
    """Return a layer's configuration with another number of outputs, heads and groups."""
    layers = tf.keras.layers
    if isinstance(layer, layers.TimeDistributed | layers.Bidirectional):
        for name in ("layer", "backward_layer"):
            if name in config:
                inner_config = config[name]["config"]
                config[name]["config"] = resized(layer.layer, inner_config, width, heads, groups)
    elif type(layer) is layers.RNN:
        config["cell"]["config"]["units"] = width
    elif isinstance(layer, layers.MultiHeadAttention):
        # Shapes are inferred again when it is called.
        unknown = dict.fromkeys(("query_shape", "key_shape", "value_shape"))
        config |= {"num_heads": heads, "output_shape": (width,), **unknown}
    elif isinstance(layer, layers.EinsumDense):
        shape = config["output_shape"]
        config["output_shape"] = (*shape[:-1], width) if isinstance(shape, list | tuple) else width
    else:
        named = ("units", "filters", "output_dim")
        config[next(name for name in named if name in config)] = width
        if "groups" in config:
            config["groups"] = groups
    return config


def is_user_defined(layer: Any) -> bool:
    """Return True for a user's layer class, or a Lambda."""
    kind = type(layer)
    return kind.__name__ == "Lambda" or not kind.__module__.startswith(("tf_keras", "keras"))


def joins_channels(layer: Any, node: Any) -> bool:
    """Return True where the axis of a Concatenate or a normalization is the last one."""
    rank = len(node.keras_inputs[0].shape)
    axis = getattr(layer, "axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    return axis in (-1, rank - 1)


def is_plain(node: Any) -> bool:
    """Return True for a built-in layer without weights that treats every channel alike."""
    layer, kind = inner(node.layer), type(inner(node.layer)).__name__
    if kind == "Permute":
        return bool(layer.dims[-1] == len(layer.dims))
    if kind == "Rescaling":
        return np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0
    return kind in _PLAIN or kind == "Reshape" or is_reduction(node)


def is_reduction(node: Any) -> bool:
    """Return True for a function that reduces dimensions other than channels."""
    if type(node.layer).__name__ != "TFOpLambda":
        return False
    if node.layer.get_config()["function"] not in _REDUCTIONS:
        return False
    rank = len(node.keras_inputs[0].shape)
    axis = node.call_kwargs.get("axis", node.call_args[1] if len(node.call_args) > 1 else None)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return all(isinstance(a, int) and a % rank != rank - 1 for a in axes)


def concatenates(node: Any) -> bool:
    """Return True for tf.concat over channels."""
    if type(node.layer).__name__ != "TFOpLambda" or node.layer.get_config()["function"] != "concat":
        return False
    axis = node.call_kwargs.get("axis", node.call_args[1] if len(node.call_args) > 1 else None)
    return axis in (-1, len(node.keras_inputs[0].shape) - 1)


def untraceable(node: Any, inputs: Sequence[np.ndarray], outputs: Sequence[Any]) -> str:
    """Return the reason why a layer's output channels cannot be related to its input channels;
    empty where they can."""
    layer, layers = inner(node.layer), tf.keras.layers
    kind = type(layer).__name__
    if len(outputs) != 1 or not inputs:
        symbol = layer.get_config()["function"] if kind == "TFOpLambda" else ""
        return f"{f'tf.{symbol}' if symbol else kind} has several outputs"
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return "its channels come first"
    if kind == "Reshape":
        same = len(inputs[0]) == outputs[0].shape[-1] and len(outputs[0].shape) > 1
        return "" if same else "Reshape moves channels among other dimensions"
    if kind == "Permute" and not is_plain(node):
        return "Permute moves channels to another dimension"
    if kind == "Rescaling" and not is_plain(node):
        return "it scales each channel by a constant of its own"
    if kind == "Softmax" or (kind == "Activation" and _is_mixing(layer)):
        return "its softmax mixes channels"
    if kind in ("BatchNormalization", "LayerNormalization"):
        of_channels = joins_channels(layer, node)
        return "" if of_channels else "it normalizes a dimension other than channels"
    if kind == "PReLU":
        return "" if layer.alpha.shape[-1] == len(inputs[0]) else "its slope is shared by channels"
    if kind == "TFOpLambda":
        return "" if is_plain(node) or concatenates(node) else _operation_not_followed(node)
    if kind in ("Attention", "AdditiveAttention", "MultiHeadAttention"):
        return _attention_not_followed(node, layer, inputs)
    if kind == "EinsumDense":
        return "" if _einsum_axes(layer) is not None else "its equation moves channels"
    if is_plain(node) or kind in (*MERGES, "Concatenate", "Flatten", "Dense", "Embedding"):
        return ""
    if is_recurrent(layer):
        return "its initial state is an input" if len(inputs) > 1 else ""
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        return ""
    if is_producer(layer):
        return ""
    return f"{kind} can mix channels"


def _is_mixing(layer: Any) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "") in _MIXING_ACTIVATIONS


def mixes_outputs(layer: Any) -> bool:
    """Return True where a layer's activation function mixes channels."""
    return _is_mixing(inner(layer))


def _attention_not_followed(node: Any, layer: Any, inputs: Sequence[np.ndarray]) -> str:
    if type(layer).__name__ != "MultiHeadAttention":
        widths = {len(labels) for labels in inputs}
        return "" if len(widths) == 1 and len(inputs) > 1 else "its inputs differ in width"
    if any(len(g) != len(inputs[0]) or (g != inputs[0]).any() for g in inputs[1:]):
        return "it is not self-attention"
    others = [a for a in tf.nest.flatten((node.call_args, node.call_kwargs)) if tf.is_tensor(a)]
    if len(others) > len(inputs):
        return "its mask is an input"
    flat = layer._output_shape is None or len(layer._output_shape) == 1
    return "" if flat else "its output_shape has several dimensions"


def _operation_not_followed(node: Any) -> str:
    symbol = node.layer.get_config()["function"]
    if symbol not in _OPERATIONS:
        return f"tf.{symbol} can mix channels"
    arguments = tf.nest.flatten((node.call_args, node.call_kwargs))
    plain = (int, float, str, bool, type(None))
    if all(isinstance(a, plain) or tf.keras.backend.is_keras_tensor(a) for a in arguments):
        return ""
    return f"tf.{symbol} takes a constant for each channel"
