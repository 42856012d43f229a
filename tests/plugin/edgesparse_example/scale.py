"""A layer that scales its inputs."""

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("edgesparse_example")
class Scale(tf.keras.layers.Layer):
    """Multiplies by a trained number."""

    def build(self, shape):
        self.factor = self.add_weight("factor", (), initializer="ones")
        super().build(shape)

    def call(self, x):
        return x * self.factor

    def active_weights(self):
        return 1
