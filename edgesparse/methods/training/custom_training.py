"""Detection of custom training that a model's layers alone do not have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.functional import arranged

_METHODS = ("train_step", "compute_loss", "make_train_function")


def custom_step(model: tf.keras.Model) -> str:
    """Return the overridden method of a user's model class, such as "Vae.train_step()"; empty where
    it trains as Keras does."""
    kind = type(model)
    names = [n for n in _METHODS if getattr(kind, n) is not getattr(tf.keras.Model, n)]
    return f"{kind.__name__}.{names[0]}()" if names else ""


def dropped_losses(
    model: tf.keras.Model, flat: tf.keras.Model, samples: Mapping[str, np.ndarray]
) -> str:
    """Return a description of losses that a model adds in its call() but its layers do not; empty
    where there are none.

    Args:
        model: the user's model.
        flat: the same model as a graph of layers.
        samples: a few samples of each input.
    """
    if model is flat:
        return ""
    weights = model.get_weights()  # Batch normalization moves its statistics.
    counts = []
    for network in (model, flat):
        network(arranged(network, samples), training=True)
        counts.append(len(network.losses))
    model.set_weights(weights)
    if counts[0] <= counts[1]:
        return ""
    return f"add_loss() of {type(model).__name__}, or of a model in it,"
