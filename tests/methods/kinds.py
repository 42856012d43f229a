"""What each kind of layer can have done to it: a table in the documentation's layers.md.

python -m tests.methods.kinds        print it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Tensor
from edgesparse.methods.network.dependencies import trace
from edgesparse.methods.network.functional import functional
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.quantize_aware import unsupported_layers
from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite.convert import convert
from tests.methods.networks import Own

L = tf.keras.layers
SCHEMES = ("f32", "f16", "dynamic", "int8", "int16x8")
Kind = tuple[tuple[int, ...], Callable[[Any], Any]]
S, I = (12, 8), (8, 8, 8)  # noqa: E741 (a sequence, an image)


def twice(x: Any) -> list[Any]:
    return [x, L.Conv1D(8, 1, name="other")(x)]


KINDS: dict[str, Kind] = {
    "Dense": (S, lambda x: L.Dense(16, name="it")(x)),
    "Conv1D": (S, lambda x: L.Conv1D(16, 3, name="it")(x)),
    "Conv2D": (I, lambda x: L.Conv2D(16, 3, name="it")(x)),
    "Conv2D with groups": (I, lambda x: L.Conv2D(16, 3, groups=4, name="it")(x)),
    "Conv3D": (I, lambda x: L.Conv3D(8, 2, name="it")(L.Reshape((4, 4, 4, 8))(x))),
    "Conv1DTranspose": (S, lambda x: L.Conv1DTranspose(16, 3, name="it")(x)),
    "Conv2DTranspose": (I, lambda x: L.Conv2DTranspose(16, 3, name="it")(x)),
    "DepthwiseConv2D": (I, lambda x: L.DepthwiseConv2D(3, name="it")(x)),
    "SeparableConv1D": (S, lambda x: L.SeparableConv1D(16, 3, name="it")(x)),
    "SeparableConv2D": (I, lambda x: L.SeparableConv2D(16, 3, name="it")(x)),
    "LocallyConnected2D": (I, lambda x: L.LocallyConnected2D(8, 3, name="it")(x)),
    "EinsumDense": (S, lambda x: L.EinsumDense("abc,cd->abd", (None, 16), name="it")(x)),
    "LSTM": (S, lambda x: L.LSTM(16, name="it")(x)),
    "GRU, SimpleRNN, RNN of a cell": (S, lambda x: L.GRU(16, name="it")(x)),
    "ConvLSTM2D": (I, lambda x: L.ConvLSTM2D(8, 2, name="it")(L.Reshape((4, 4, 4, 8))(x))),
    "Bidirectional": (S, lambda x: L.Bidirectional(L.LSTM(8), name="it")(x)),
    "TimeDistributed": (S, lambda x: L.TimeDistributed(L.Dense(16), name="it")(x)),
    "MultiHeadAttention": (S, lambda x: L.MultiHeadAttention(4, 4, name="it")(x, x)),
    "Attention, AdditiveAttention": (S, lambda x: L.Attention(name="it")(twice(x))),
    "BatchNormalization": (S, lambda x: L.BatchNormalization(name="it")(x)),
    "LayerNormalization": (S, lambda x: L.LayerNormalization(name="it")(x)),
    "GroupNormalization": (S, lambda x: L.GroupNormalization(4, name="it")(x)),
    "ReLU, LeakyReLU, ELU": (S, lambda x: L.LeakyReLU(name="it")(x)),
    "PReLU, a slope per channel": (S, lambda x: L.PReLU(shared_axes=[1], name="it")(x)),
    "Softmax": (S, lambda x: L.Softmax(name="it")(x)),
    "poolings": (I, lambda x: L.MaxPooling2D(name="it")(x)),
    "global poolings": (I, lambda x: L.GlobalAveragePooling2D(name="it")(x)),
    "UpSampling, ZeroPadding, Cropping": (I, lambda x: L.UpSampling2D(name="it")(x)),
    "Dropout and noise": (S, lambda x: L.Dropout(0.1, name="it")(x)),
    "Add, Multiply, Maximum ...": (S, lambda x: L.Add(name="it")(twice(x))),
    "Concatenate": (S, lambda x: L.Concatenate(name="it")(twice(x))),
    "Flatten": (S, lambda x: L.Flatten(name="it")(x)),
    "Reshape that keeps channels last": (I, lambda x: L.Reshape((64, 8), name="it")(x)),
    "Permute of channels": (S, lambda x: L.Permute((2, 1), name="it")(x)),
    "Rescaling": (S, lambda x: L.Rescaling(2.0, name="it")(x)),
    "Lambda of single values": (S, lambda x: L.Lambda(lambda t: t * 2.0, name="it")(x)),
    "a layer of your own with a kernel": (S, lambda x: Own(16, name="it")(x)),
    "tf functions of single values": (S, lambda x: tf.nn.relu6(x)),
    "tf.concat, tf.reduce_mean": (S, lambda x: tf.reduce_mean(x, axis=1)),
    "tf.split, slicing": (S, lambda x: tf.split(x, 2, axis=-1)[0]),
}


def built(kind: Kind) -> tf.keras.Model:
    """A layer between others."""
    shape, build = kind
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input(shape)
    before = L.Conv1D(8, 1, name="before") if len(shape) == 2 else L.Conv2D(8, 1, name="before")
    x = build(before(inputs))
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    model = tf.keras.Model(inputs, L.Dense(2, name="end")(x))
    return functional(model, {"x": Tensor(shape, "float32")}, "m")


def line(kind: Kind, schemes: Sequence[str] = SCHEMES) -> list[str]:
    """What becomes of a layer: magnitude, channels, each scheme, quantization-aware training."""
    model = built(kind)
    own = [k for k in kernels(model).values() if k.layer == "it"]
    pruned = [k for k in own if not k.reason]
    zeros = "no kernel" if not own else "if named" if not pruned else "yes"
    zeros += ", in blocks" if any(k.takes_blocks for k in pruned) else ""
    groups = [set(group.layers) for group in trace(model).groups()]
    if any({"it", "it/heads"} & group for group in groups):
        channels = "heads and outputs" if {"it/heads"} in groups else "loses its own"
    else:
        channels = "lets pass" if any("before" in group for group in groups) else "stops"
    x = np.random.default_rng(0).random((8, *kind[0]), np.float32)
    found = []
    for scheme in schemes:
        try:
            convert(built(kind), scheme, x)  # type: ignore[arg-type]
            found.append("yes")
        except EdgesparseError:
            found.append("no")
    left, _ = unsupported_layers(model)
    names = {name.split(" ")[0] for name in left}
    function = any("TFOp" in name or "Slicing" in name for name in left)
    aware = "calibrated" if "it" in names or function else "yes"
    return [zeros, channels, *found, aware]


def table() -> str:
    """In markdown."""
    head = ["layer", "magnitude", "channels", *SCHEMES, "int8 aware"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join([name, *line(kind)]) + " |" for name, kind in KINDS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
