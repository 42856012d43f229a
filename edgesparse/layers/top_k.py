"""Layer that keeps only the largest activations."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("edgesparse")
class TopK(tf.keras.layers.Layer):
    """The k largest of float32 [batch, width] (k-winners; Makhzani and Frey 2013, arXiv 1312.5663):
    their indices int32 [batch, k] and values float32 [batch, k].

    A `SparseDense` behind it reads only the rows of these indices: `SparseDense(units,
    inputs=width)(TopK(k)(x))`.
    """

    def __init__(self, k: int, **more: Any) -> None:
        super().__init__(**more)
        self.k = int(k)

    def build(self, shape: Any) -> None:
        if not 1 <= self.k <= int(shape[-1]):
            raise ValueError(f"{self.name}: k must be 1 to {shape[-1]}, not {self.k}")
        super().build(shape)

    def call(self, x: Any) -> tuple[Any, Any]:
        values, places = tf.math.top_k(x, self.k)
        return places, values

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}
