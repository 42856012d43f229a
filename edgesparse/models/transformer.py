"""A transformer's encoder for classification, with sparse attention and, if wanted, experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgesparse.layers.experts import Experts
from edgesparse.layers.sparse_attention import SparseAttention


def transformer(
    classes: int,
    length: int,
    vocabulary: int | None = None,
    features: int | None = None,
    width: int = 64,
    heads: int = 4,
    blocks: int = 2,
    hidden: int = 128,
    window: int = 64,
    global_tokens: int = 0,
    random_blocks: int = 0,
    stride: int = 1,
    experts: int = 0,
    top_k: int = 2,
    dropout: float = 0.1,
) -> tf.keras.Model:
    """Tokens int32 [batch, length], 0 for padding, of a `vocabulary`; or float32 [batch, length,
    features]. Embedded, with a learned place for each token, then `blocks` of attention and a
    feed-forward network (Vaswani et al. 2017, arXiv 1706.03762; normalized before, Xiong et al.
    2020), the mean over what is no padding, and softmax: float32 [batch, classes].

    `window`, `global_tokens`, `random_blocks` and `stride` are SparseAttention's; `window` 0 is
    full attention with the same weights. With `experts` the feed-forward networks are mixtures of
    them.
    """
    layers = tf.keras.layers
    if (vocabulary is None) == (features is None):
        raise ValueError("transformer: give either vocabulary or features")
    there: Any = None
    if vocabulary is not None:
        inputs = tf.keras.Input((length,), dtype="int32", name="tokens")
        there = Present(name="there")(inputs)
        x = layers.Embedding(vocabulary, width, name="embedding")(inputs)
    else:
        inputs = tf.keras.Input((length, features), name="features")
        x = layers.Dense(width, name="embedding")(inputs)
    x = Places(name="places")(x)
    for number in range(1, blocks + 1):
        attention = SparseAttention(
            heads,
            width // heads,
            window,
            global_tokens,
            random_blocks,
            stride,
            name=f"attention_{number}",
        )
        y = layers.LayerNormalization(name=f"before_attention_{number}")(x)
        x = layers.Add(name=f"attended_{number}")(
            [x, attention(y if there is None else [y, there])]
        )
        y = layers.LayerNormalization(name=f"before_feed_{number}")(x)
        y = _feed(number, width, hidden, experts, top_k)(y)
        y = layers.Dropout(dropout, name=f"dropout_{number}")(y)
        x = layers.Add(name=f"fed_{number}")([x, y])
    x = layers.LayerNormalization(name="last")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x) if there is None else Mean(name="mean")(
        [x, there]
    )  # fmt: skip
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name="transformer")


def _feed(number: int, width: int, hidden: int, experts: int, top_k: int) -> Any:
    """The feed-forward network of a block."""
    if experts:
        return Experts(width, hidden, experts, top_k, name=f"experts_{number}")
    into = tf.keras.layers.Dense(hidden, activation="relu", name=f"feed_{number}")
    out = tf.keras.layers.Dense(width, name=f"fed_out_{number}")
    return lambda x: out(into(x))


@tf.keras.utils.register_keras_serializable("edgesparse")
class Present(tf.keras.layers.Layer):
    """1 where a token is one, 0 where it is padding: int32 [batch, length] to float32."""

    def call(self, tokens: Any) -> Any:
        return tf.cast(tf.minimum(tokens, 1), tf.float32)


@tf.keras.utils.register_keras_serializable("edgesparse")
class Places(tf.keras.layers.Layer):
    """Adds to each token what its place is, which is learned: [batch, length, width]."""

    def build(self, shape: Sequence[int]) -> None:
        size = (int(shape[1]), int(shape[2]))
        self.places = self.add_weight("places", size, initializer="random_normal")
        super().build(shape)

    def call(self, x: Any) -> Any:
        return x + self.places


@tf.keras.utils.register_keras_serializable("edgesparse")
class Mean(tf.keras.layers.Layer):
    """The mean over the tokens that are there: [batch, length, width] and [batch, length]."""

    def call(self, inputs: Sequence[Any]) -> Any:
        x, there = inputs
        total = tf.squeeze(tf.matmul(there[:, None, :], x), 1)
        # Twice by the root: tflite-runtime divides no int8.
        root = tf.math.rsqrt(tf.maximum(tf.reduce_sum(there, 1, keepdims=True), 1.0))
        return total * root * root
