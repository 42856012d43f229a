"""A perceptron with a hidden layer."""

import tensorflow as tf

from edgesparse.layers import Scale


def perceptron(width=16):
    """For images of 8 x 8 x 1, two classes."""
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1)),
            layers.Flatten(),
            Scale(),
            layers.Dense(width, "relu"),
            layers.Dense(2, "softmax"),
        ]
    )
