"""A fully connected layer that reads only the kernel rows of nonzero inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


@tf.keras.utils.register_keras_serializable("edgesparse")
class SparseDense(tf.keras.layers.Layer):
    """Product of a sparse vector and a kernel: the sum of the rows of its ids, each times its
    value. Equal to a fully connected layer on the dense vector.

    Inputs: a list of int32 ids [batch, n], below `inputs`, and float32 values [batch, n]; a value
    of 0 is padding, whatever its id. Output: float32 [batch, units]. With the counts of n words of
    a vocabulary it reads n rows of the table instead of all.

    Args:
        units: number of output values.
        inputs: length of the dense vector.
        rows: number of rows of the table, where inputs were removed; see `compact`.
    """

    def __init__(
        self,
        units: int,
        inputs: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        rows: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.units, self.inputs, self.use_bias = int(units), int(inputs), use_bias
        self.rows = rows
        self.activation = tf.keras.activations.get(activation)
        self.kernel_initializer = tf.keras.initializers.get(kernel_initializer)
        self.bias_initializer = tf.keras.initializers.Zeros()

    def build(self, shapes: Sequence[Any]) -> None:
        shape = (self.rows or self.inputs, self.units)
        self.kernel = self.add_weight("kernel", shape, initializer=self.kernel_initializer)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), initializer=self.bias_initializer)
        self.places = None
        if self.rows is not None:
            self.places = self.add_weight(
                "places", (self.inputs,), tf.int32, tf.keras.initializers.Zeros(), trainable=False
            )
        self.reads = int(shapes[0][-1])
        super().build(shapes)

    def call(self, inputs: Sequence[Any]) -> Any:
        ids, values = inputs
        if self.places is not None:
            ids = tf.gather(self.places, ids)
        rows = tf.gather(self.kernel, ids)
        total = tf.squeeze(tf.matmul(values[:, None, :], rows), 1)
        if self.bias is not None:
            total += self.bias
        return self.activation(total)

    def compact(self) -> tuple[SparseDense, list[np.ndarray]]:
        """Return a layer without rows for inputs whose weights are all zero, and its weights.

        Removed inputs share a last row of zeros; an index of four bytes per input maps to rows.
        """
        values = self.get_weights()
        kernel = values[0]
        alive = np.flatnonzero((kernel != 0).any(axis=1))
        if self.places is not None:
            alive = alive[alive < len(kernel) - 1]
        places = np.full(len(kernel), len(alive), np.int32)
        places[alive] = np.arange(len(alive))
        if self.places is not None:
            places = places[self.places.numpy()]
        smaller = SparseDense.from_config({**self.get_config(), "rows": len(alive) + 1})
        table = np.concatenate([kernel[alive], np.zeros((1, self.units), kernel.dtype)])
        bias = values[1:2] if self.use_bias else []
        return smaller, [table, *bias, places]

    def active_weights(self) -> int:
        """Return the largest number of weights that an inference reads."""
        return min(self.reads, self.inputs) * self.units + (self.units if self.use_bias else 0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "inputs": self.inputs,
            "use_bias": self.use_bias,
            "rows": self.rows,
            "activation": tf.keras.activations.serialize(self.activation),
            "kernel_initializer": tf.keras.initializers.serialize(self.kernel_initializer),
        }
