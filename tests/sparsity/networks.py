"""Small networks of every layer family, for data of shape [12, 8] or [8, 8, 3] with 4 classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

L = tf.keras.layers
SEQUENCE, IMAGE, TOKENS = (12, 8), (8, 8, 3), (12,)


class Own(L.Layer):
    """A layer that nobody has registered, with a weight of its own."""

    def __init__(self, units: int = 24, **named: Any) -> None:
        super().__init__(**named)
        self.units = units

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units))
        super().build(shape)

    def call(self, x: Any) -> Any:
        return tf.nn.relu(tf.matmul(x, self.w))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class Subclassed(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = L.Conv2D(8, 3, activation="relu"), L.Conv2D(16, 3)
        self.pool, self.out = L.GlobalAveragePooling2D(), L.Dense(4, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.out(self.pool(self.second(self.first(x))))


def ended(shape: tuple[int, ...], *layers: Any, dtype: str = "float32") -> tf.keras.Model:
    """Layers one after another, and a classifier."""
    x = inputs = tf.keras.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    if len(x.shape) > 2:
        x = L.Flatten()(x)
    return tf.keras.Model(inputs, L.Dense(4, activation="softmax")(x))


def nested(training: bool | None = None) -> tf.keras.Model:
    base = tf.keras.Sequential(
        [tf.keras.Input(IMAGE), L.Conv2D(16, 3), L.BatchNormalization(), L.ReLU(), L.Conv2D(16, 3)],
        name="base",
    )
    inputs = tf.keras.Input(IMAGE)
    x = base(inputs) if training is None else base(inputs, training=training)
    return tf.keras.Model(inputs, L.Dense(4, activation="softmax")(L.Flatten()(x)))


def frozen() -> tf.keras.Model:
    model = nested(training=False)
    model.get_layer("base").trainable = False
    return model


def shared() -> tf.keras.Model:
    twice = L.Dense(8, activation="relu")
    x = inputs = tf.keras.Input(SEQUENCE)
    x = L.Flatten()(twice(twice(x)))
    return tf.keras.Model(inputs, L.Dense(4, activation="softmax")(x))


def attention() -> tf.keras.Model:
    inputs = tf.keras.Input(SEQUENCE)
    x = L.LayerNormalization()(L.Add()([inputs, L.MultiHeadAttention(2, 8)(inputs, inputs)]))
    x = L.GlobalAveragePooling1D()(L.Dense(16, activation="gelu")(x))
    return tf.keras.Model(inputs, L.Dense(4, activation="softmax")(x))


BUILDERS: dict[str, Callable[[], tf.keras.Model]] = {
    "dense": lambda: ended(SEQUENCE, L.Flatten(), L.Dense(32, "relu"), L.Dense(16)),
    "conv1d": lambda: ended(SEQUENCE, L.Conv1D(16, 3), L.MaxPooling1D(2), L.Conv1D(16, 3)),
    "causal conv1d": lambda: ended(SEQUENCE, L.Conv1D(16, 3, padding="causal", dilation_rate=2)),
    "separable conv1d": lambda: ended(SEQUENCE, L.SeparableConv1D(16, 3)),
    "conv2d": lambda: ended(IMAGE, L.Conv2D(8, 3), L.Conv2D(16, 3), L.GlobalAveragePooling2D()),
    "grouped conv2d": lambda: ended(IMAGE, L.Conv2D(16, 3), L.Conv2D(16, 3, groups=4)),
    "separable conv2d": lambda: ended(IMAGE, L.Conv2D(8, 1), L.SeparableConv2D(16, 3)),
    "depthwise": lambda: ended(IMAGE, L.DepthwiseConv2D(3), L.Conv2D(16, 1), L.Conv2D(16, 1)),
    "transposed": lambda: ended(IMAGE, L.Conv2D(8, 3), L.Conv2DTranspose(8, 3), L.MaxPooling2D(4)),
    "gru": lambda: ended(SEQUENCE, L.GRU(16)),
    "gru sequences": lambda: ended(SEQUENCE, L.GRU(16, return_sequences=True), L.GRU(8)),
    "lstm": lambda: ended(SEQUENCE, L.LSTM(16)),
    "simple rnn": lambda: ended(SEQUENCE, L.SimpleRNN(16)),
    "bidirectional": lambda: ended(SEQUENCE, L.Bidirectional(L.LSTM(8))),
    "time distributed": lambda: ended(SEQUENCE, L.TimeDistributed(L.Dense(16, "relu"))),
    "embedding": lambda: ended(TOKENS, L.Embedding(50, 16), L.GlobalAveragePooling1D(),
                               dtype="int32"),
    "attention": attention,
    "einsum": lambda: ended(SEQUENCE, L.EinsumDense("abc,cd->abd", (None, 16), bias_axes="d")),
    "own layer": lambda: ended(SEQUENCE, L.Flatten(), Own()),
    "lambda": lambda: ended(SEQUENCE, L.Lambda(lambda t: t * 2.0), L.Flatten(), L.Dense(32)),
    "operators": lambda: ended(SEQUENCE, L.Flatten(), L.Dense(32), tf.nn.relu6, tf.math.tanh),
    "prelu": lambda: ended(IMAGE, L.Conv2D(8, 3), L.PReLU(shared_axes=[1, 2]), L.Conv2D(8, 3)),
    "nested": nested,
    "nested, not training": lambda: nested(training=False),
    "frozen": frozen,
    "shared": shared,
    "subclassed": Subclassed,
    "sequential, not built": lambda: tf.keras.Sequential(
        [L.Flatten(), L.Dense(32, "relu"), L.Dense(4, "softmax")]
    ),
}  # fmt: skip


def shape_of(name: str) -> tuple[int, ...]:
    """Of one sample."""
    if name == "embedding":
        return TOKENS
    images = ("conv2d", "depthwise", "transposed", "prelu", "nested", "frozen", "subclassed")
    return IMAGE if any(word in name for word in images) else SEQUENCE
