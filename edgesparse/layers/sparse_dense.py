"""A fully connected layer that reads only the rows of its inputs that are not zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """

    def __init__(
        self,
        units: int,
        inputs: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.units, self.inputs, self.use_bias = int(units), int(inputs), use_bias
        self.activation = tf.keras.activations.get(activation)
        self.kernel_initializer = tf.keras.initializers.get(kernel_initializer)
        self.bias_initializer = tf.keras.initializers.Zeros()

    def build(self, shapes: Sequence[Any]) -> None:
        shape = (self.inputs, self.units)
        self.kernel = self.add_weight("kernel", shape, initializer=self.kernel_initializer)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), initializer=self.bias_initializer)
        self.reads = int(shapes[0][-1])
        super().build(shapes)

    def call(self, inputs: Sequence[Any]) -> Any:
        ids, values = inputs
        rows = tf.gather(self.kernel, ids)
        total = tf.squeeze(tf.matmul(values[:, None, :], rows), 1)
        if self.bias is not None:
            total += self.bias
        return self.activation(total)

    def active_weights(self) -> int:
        """How many weights one inference reads, at most."""
        return min(self.reads, self.inputs) * self.units + (self.units if self.use_bias else 0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "inputs": self.inputs,
            "use_bias": self.use_bias,
            "activation": tf.keras.activations.serialize(self.activation),
            "kernel_initializer": tf.keras.initializers.serialize(self.kernel_initializer),
        }
