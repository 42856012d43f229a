"""Classification: each sample has one of several classes, and the model gives a value for each.

Training uses the loss and the metrics; outputs are judged by `judge`, whoever gave them: the Keras
model, this machine's runtimes or a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.data import Dataset
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train

if TYPE_CHECKING:
    import tensorflow as tf


def loss(train: Train) -> tf.keras.losses.Loss:
    """Cross-entropy of softmax outputs, or of logits where the pipeline says so."""
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=train.from_logits)


def metrics() -> list[Any]:
    """What training reports, as Keras takes it."""
    return ["accuracy"]


def check_outputs(model: tf.keras.Model, dataset: Dataset) -> None:
    """Raise UsageError where the model does not give one value per class."""
    outputs = tuple(model.outputs[0].shape[1:])
    classes = len(dataset.class_names)
    if outputs != (classes,):
        raise UsageError(
            f"the model gives {list(outputs)} but the data has {classes} classes; "
            "it must give one value per class"
        )


def right(outputs: np.ndarray, targets: np.ndarray) -> int:
    """How many of the outputs [n, ...] are highest at their target [n], counted over all of ....

    What is no number is never right: argmax would take it for the highest.
    """
    values = outputs.reshape(len(outputs), -1)
    return int(np.sum((values.argmax(axis=1) == targets) & np.isfinite(values).all(axis=1)))


def judge(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy: the share of samples classified right."""
    return right(outputs, targets) / len(targets)
