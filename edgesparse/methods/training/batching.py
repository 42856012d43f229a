"""A dataset's samples in batches, in the form that Keras' fit takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.training.recipe import Recipe, by_name
from edgesparse.spec.training import Train

HELD_BYTES = 128_000_000
"""Most bytes of samples held in memory, for shuffling and for validation each."""
_SHUFFLED = 10_000


def batched(
    dataset: Dataset, train: Train, recipe: Recipe, answers: tf.data.Dataset | None = None
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Return training and validation data in batches, in the model's form.

    Args:
        dataset: the data.
        train: settings.
        recipe: names and order of inputs and targets.
        answers: for each training sample, the outputs of a teacher; each x is then (x, answers).
    """
    size = sample_bytes(dataset)
    held = max(2 * train.batch_size, HELD_BYTES // size)
    arrange = arrangement(recipe)
    training, arrange_training = dataset.train.samples, arrange
    if answers is not None:
        training = tf.data.Dataset.zip((training, answers)).map(
            lambda sample, answer: ((sample[0], answer), *sample[1:])
        )
        arrange_training = _beside_answers(arrange)
    if _has_labels(recipe):
        training = training.filter(lambda x, y, *_: tf.reduce_all(tf.equal(y, 0)))
    batches = (
        training.shuffle(min(dataset.train.count, _SHUFFLED, held), seed=train.seed)
        .map(arrange_training)
        .batch(train.batch_size)
        .prefetch(2)
    )
    validation = dataset.validation.samples.map(arrange).batch(train.batch_size)
    if dataset.validation.count * size <= HELD_BYTES:
        validation = validation.cache()  # Decoded once: it is read every epoch.
    return batches, validation.prefetch(2)


def arrangement(recipe: Recipe) -> Callable[..., Any]:
    """Return a function that brings the data's names into the model's order."""

    def arrange(x: Any, y: Any, *weights: Any) -> Any:
        named_x, named_y = by_name(recipe, x, y)
        xs = tuple(named_x[name] for name in recipe.inputs)
        ys = tuple(named_y[name] for name in recipe.targets)
        if _has_labels(recipe):
            ys = (xs[0],)
        return (xs[0] if len(xs) == 1 else xs, ys[0] if len(ys) == 1 else ys, *weights)

    return arrange


def _beside_answers(arrange: Callable[..., Any]) -> Callable[..., Any]:
    def arrange_sample(x_and_answer: Any, y: Any, *weights: Any) -> Any:
        x, answer = x_and_answer
        arranged, *others = arrange(x, y, *weights)
        return ((arranged, answer), *others)

    return arrange_sample


def _has_labels(recipe: Recipe) -> bool:
    return bool(recipe.resolved.get("labels"))


def sample_bytes(dataset: Dataset) -> int:
    """Return the size of a sample, inputs and targets; a dynamic size counts as 1."""
    sizes = [
        math.prod(size or 1 for size in tensor.shape) * np.dtype(tensor.dtype).itemsize
        for tensor in (*dataset.inputs.values(), *dataset.targets.values())
    ]
    return max(1, sum(sizes))
