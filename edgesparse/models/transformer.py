"""Transformer encoder for classification, with sparse attention and optional experts."""

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
    """Build an embedding with learned positions, `blocks` of attention and a feed-forward network
    (Vaswani et al. 2017, arXiv 1706.03762; pre-norm, Xiong et al. 2020), and a softmax of the mean
    over tokens that are not padding.

    Input: tokens int32 [batch, length] of a `vocabulary`, 0 for padding; or float32 [batch, length,
    features]. Output: float32 [batch, classes].

    Args:
        window, global_tokens, random_blocks, stride: see `SparseAttention`; window 0 is full
            attention with the same weights.
        experts: number of experts per block; 0: one feed-forward network of width `hidden`.
        top_k: experts that each sample uses.

    Raises:
        ValueError: not exactly one of `vocabulary` and `features` is set.
    """
    layers = tf.keras.layers
    if (vocabulary is None) == (features is None):
        raise ValueError("transformer: set either vocabulary or features")
    mask: Any = None
    if vocabulary is not None:
        inputs = tf.keras.Input((length,), dtype="int32", name="tokens")
        mask = PaddingMask(name="padding_mask")(inputs)
        x = layers.Embedding(vocabulary, width, name="embedding")(inputs)
    else:
        inputs = tf.keras.Input((length, features), name="features")
        x = layers.Dense(width, name="embedding")(inputs)
    x = PositionEmbedding(name="position_embedding")(x)
    pattern = (window, global_tokens, random_blocks, stride)
    for number in range(1, blocks + 1):
        attention = SparseAttention(heads, width // heads, *pattern, name=f"attention_{number}")
        y = layers.LayerNormalization(name=f"before_attention_{number}")(x)
        x = layers.Add(name=f"attended_{number}")([x, attention(y if mask is None else [y, mask])])
        y = layers.LayerNormalization(name=f"before_feed_{number}")(x)
        y = _feed(number, width, hidden, experts, top_k)(y)
        y = layers.Dropout(dropout, name=f"dropout_{number}")(y)
        x = layers.Add(name=f"fed_{number}")([x, y])
    x = layers.LayerNormalization(name="last")(x)
    mean = layers.GlobalAveragePooling1D if mask is None else MaskedMean
    x = mean(name="mean")(x if mask is None else [x, mask])
    x = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, x, name="transformer")


def _feed(number: int, width: int, hidden: int, experts: int, top_k: int) -> Any:
    """Return the feed-forward network of a block."""
    if experts:
        return Experts(width, hidden, experts, top_k, name=f"experts_{number}")
    into = tf.keras.layers.Dense(hidden, activation="relu", name=f"feed_{number}")
    out = tf.keras.layers.Dense(width, name=f"fed_out_{number}")
    return lambda x: out(into(x))


@tf.keras.utils.register_keras_serializable("edgesparse")
class PaddingMask(tf.keras.layers.Layer):
    """Mask of tokens int32 [batch, length]: float32, 1 for a token and 0 for padding."""

    def call(self, tokens: Any) -> Any:
        return tf.cast(tf.minimum(tokens, 1), tf.float32)


@tf.keras.utils.register_keras_serializable("edgesparse")
class PositionEmbedding(tf.keras.layers.Layer):
    """Adds a learned embedding of its position to each token: [batch, length, width]."""

    def build(self, shape: Sequence[int]) -> None:
        size = (int(shape[1]), int(shape[2]))
        self.embedding = self.add_weight("embedding", size, initializer="random_normal")
        super().build(shape)

    def call(self, x: Any) -> Any:
        return x + self.embedding


@tf.keras.utils.register_keras_serializable("edgesparse")
class MaskedMean(tf.keras.layers.Layer):
    """Mean over tokens that are not padding, of [batch, length, width] and mask [batch, length]."""

    def call(self, inputs: Sequence[Any]) -> Any:
        x, mask = inputs
        total = tf.squeeze(tf.matmul(mask[:, None, :], x), 1)
        # Multiplied twice by 1/sqrt(count): tflite-runtime cannot divide int8.
        root = tf.math.rsqrt(tf.maximum(tf.reduce_sum(mask, 1, keepdims=True), 1.0))
        return total * root * root
