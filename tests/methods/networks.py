"""Small networks of every layer family, for series or images with 4 classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

L = tf.keras.layers
SEQUENCE, IMAGE, TOKENS = (12, 8), (8, 8, 3), (12,)
SHORT = (6, 8)
"""For recurrent layers, which are unrolled: each step is traced, and traced again by each fit."""


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


def residual() -> tf.keras.Model:
    """With a squeeze-and-excitation gate, whose one pixel is spread over all."""
    inputs = tf.keras.Input(IMAGE)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", use_bias=False)(inputs)))
    gate = L.Dense(8, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
    gated = L.Multiply()([x, L.Dense(16, activation="hard_sigmoid")(gate)])
    x = L.Add()([x, L.Conv2D(16, 3, padding="same")(gated)])
    return tf.keras.Model(inputs, L.Dense(4, "softmax")(L.GlobalMaxPooling2D()(x)))


def branches() -> tf.keras.Model:
    """An encoder, a decoder and what skips both, side by side at the end."""
    inputs = tf.keras.Input(IMAGE)
    first = L.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    deep = L.Conv2D(32, 3, padding="same", activation="relu")(L.MaxPooling2D()(first))
    x = L.Concatenate()([first, L.UpSampling2D(interpolation="bilinear")(deep)])
    x = L.Conv2D(16, 3, activation=tf.nn.silu)(L.ZeroPadding2D(1)(x))
    pooled = L.Concatenate()([L.GlobalAveragePooling2D()(x), L.Flatten()(L.Cropping2D(3)(x))])
    return tf.keras.Model(inputs, L.Dense(4, "softmax")(pooled))


def transformer() -> tf.keras.Model:
    """Tokens with learned places, attention, and a mean by a function of TensorFlow's."""
    inputs = tf.keras.Input(TOKENS, dtype="int32")
    places = L.Embedding(12, 16)(tf.range(12))
    x = L.Embedding(50, 16)(inputs) + places
    attended = L.MultiHeadAttention(4, 4, dropout=0.1)(x, x)
    x = L.LayerNormalization(epsilon=1e-6)(x + L.Dropout(0.1)(attended))
    x = L.LayerNormalization()(x + L.Dense(16)(L.Dense(32, activation="gelu")(x)))
    return tf.keras.Model(inputs, L.Dense(4, "softmax")(tf.reduce_mean(x, axis=1)))


def functions() -> tf.keras.Model:
    """TensorFlow's functions on Keras tensors, as people write them."""
    inputs = tf.keras.Input(SEQUENCE)
    left, right = tf.split(L.Conv1D(32, 3, padding="same")(inputs), 2, axis=-1)
    x = tf.concat([left * tf.sigmoid(right), inputs[:, :, :4]], axis=-1)
    x = tf.reshape(L.Dense(16)(x) - 0.5, (-1, 12 * 16))
    return tf.keras.Model(inputs, tf.nn.softmax(L.Dense(4)(x)))


def two_attentions() -> tf.keras.Model:
    inputs = tf.keras.Input(SEQUENCE)
    query, value = L.Dense(16)(inputs), L.Dense(16)(inputs)
    x = L.Concatenate()([L.Attention()([query, value]), L.AdditiveAttention()([query, value])])
    return tf.keras.Model(inputs, L.Dense(4, "softmax")(L.GlobalMaxPooling1D()(x)))


def prepared_images() -> tf.keras.Model:
    """What belongs to the data is in the model: scaling, and augmentation in training."""
    inputs = tf.keras.Input(IMAGE)
    x = L.RandomFlip(seed=1)(L.Rescaling(2.0, offset=-1.0)(inputs))
    x = L.Conv2D(16, 3, strides=2, activation="relu")(L.Normalization(mean=0.1, variance=2.0)(x))
    return tf.keras.Model(inputs, L.Dense(4, "softmax")(L.Dense(32, "relu")(L.Flatten()(x))))


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
    "gru": lambda: ended(SHORT, L.GRU(16)),
    "gru sequences": lambda: ended(SHORT, L.GRU(16, return_sequences=True), L.GRU(8)),
    "lstm": lambda: ended(SHORT, L.LSTM(16)),
    "simple rnn": lambda: ended(SHORT, L.SimpleRNN(16)),
    "bidirectional": lambda: ended(SHORT, L.Bidirectional(L.LSTM(8))),
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
    "conv2d, residual": residual,
    "conv2d, branches": branches,
    "conv2d, dilated": lambda: ended(IMAGE, L.Conv2D(16, 3, dilation_rate=2),
                                     L.SpatialDropout2D(0.1), L.LeakyReLU(), L.Conv2D(16, 1)),
    "conv2d, prepared images": prepared_images,
    "conv2d, locally connected": lambda: ended(IMAGE, L.Conv2D(8, 1), L.LocallyConnected2D(4, 3)),
    "conv2d, layer normalization": lambda: ended(
        IMAGE, L.Conv2D(16, 4, 4), L.LayerNormalization(), L.Conv2D(32, 1, activation="gelu"),
        L.GroupNormalization(4), L.GlobalAveragePooling2D()),
    "conv2d, convlstm": lambda: ended(
        IMAGE, L.Reshape((2, 4, 8, 3)), L.ConvLSTM2D(8, 3), L.GlobalAveragePooling2D()),
    "conv2d, conv3d": lambda: ended(
        IMAGE, L.Reshape((8, 8, 3, 1)), L.Conv3D(8, 3, padding="same"), L.AveragePooling3D(2),
        L.Conv3D(8, (2, 2, 1))),
    "transposed 1d": lambda: ended(SEQUENCE, L.Conv1D(16, 3, 2), L.Conv1DTranspose(8, 3, 2),
                                   L.AveragePooling1D(2)),
    "transformer": transformer,
    "functions": functions,
    "two attentions": two_attentions,
    "bidirectional gru": lambda: ended(
        SHORT, L.Bidirectional(L.GRU(8, return_sequences=True)), L.Conv1D(8, 3)),
    "stacked lstm": lambda: ended(
        SHORT, L.Masking(), L.LSTM(16, return_sequences=True), L.Dropout(0.2), L.LSTM(8)),
    "rnn of a cell": lambda: ended(SHORT, L.RNN(L.GRUCell(16))),
    "normalized dense": lambda: ended(
        SEQUENCE, L.Permute((2, 1)), L.Flatten(), L.BatchNormalization(), L.Dense(32),
        L.BatchNormalization(), L.ELU(), L.Dense(32, "selu")),
    "repeated": lambda: ended(SEQUENCE, L.Flatten(), L.Dense(16, "relu"), L.RepeatVector(4),
                              L.SimpleRNN(8, return_sequences=True), L.Softmax()),
    "sequential, not built": lambda: tf.keras.Sequential(
        [L.Flatten(), L.Dense(32, "relu"), L.Dense(4, "softmax")]
    ),
}  # fmt: skip


FAMILIES = (
    "dense",
    "conv1d",
    "own layer",
    "conv2d, residual",
    "gru",
    "functions",
    "depthwise",
    "attention",
    "shared",
    "transposed",
    "embedding",
)
"""A network for each way in which layers differ in what they have done to them."""


def shape_of(name: str) -> tuple[int, ...]:
    """Of one sample."""
    if name in ("embedding", "transformer"):
        return TOKENS
    images = ("conv2d", "depthwise", "transposed", "prelu", "nested", "frozen", "subclassed")
    if any(word in name for word in images) and name != "transposed 1d":
        return IMAGE
    recurrent = any(word in name for word in ("gru", "lstm", "rnn", "bidirectional"))
    return SHORT if recurrent else SEQUENCE
