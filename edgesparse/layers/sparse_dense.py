"""A fully connected layer that reads only the rows of its inputs that are not zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


@tf.keras.utils.register_keras_serializable("edgesparse")
class SparseDense(tf.keras.layers.Layer):
    """The product of a sparse vector and a kernel: the rows of the ids that there are, each times
    its value, added up. Equal to a fully connected layer on the dense vector.

    Takes int32 ids [batch, n], below `inputs`, and float32 values [batch, n], in a list; a value of
    0 is padding, whatever its id. Gives float32 [batch, units]. With word counts n of a vocabulary
    it reads n rows of the table instead of all.

    Args:
        units: how many values it gives.
        inputs: how long the dense vector would be.
        rows: how many rows the table has, where inputs have left; see `compact`.
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
        """The same layer without the inputs whose weights are all zero, and its weights. They all
        share a last row of zeros; where an input's row is takes four bytes."""
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
        """How many weights one inference reads, at most."""
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
