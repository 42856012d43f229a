"""What of a model's own training its layers alone do not have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.functional import arranged

_METHODS = ("train_step", "compute_loss", "make_train_function")


def own_step(model: tf.keras.Model) -> str:
    """The method by which a class of the user's trains itself: "Vae.train_step()"; empty where it
    trains as Keras does."""
    kind = type(model)
    names = [n for n in _METHODS if getattr(kind, n) is not getattr(tf.keras.Model, n)]
    return f"{kind.__name__}.{names[0]}()" if names else ""


def lost_losses(
    model: tf.keras.Model, flat: tf.keras.Model, samples: Mapping[str, np.ndarray]
) -> str:
    """Losses that a model, or one in it, adds in its call and that its layers do not add; empty
    where there are none.

    Args:
        flat: the same model as a graph of layers.
        samples: a few of each input.
    """
    if model is flat:
        return ""
    weights = model.get_weights()  # Batch normalization moves its statistics.
    counts = []
    for one in (model, flat):
        one(arranged(one, samples), training=True)
        counts.append(len(one.losses))
    model.set_weights(weights)
    if counts[0] <= counts[1]:
        return ""
    return f"add_loss() of {type(model).__name__}, or of a model in it,"
