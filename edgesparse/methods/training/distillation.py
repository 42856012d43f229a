"""Distillation: fine-tuning learns the outputs of the dense model beside the targets.

Hinton et al. 2015, arXiv 1503.02531.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, Split
from edgesparse.methods.training.batching import HELD_BYTES, arrangement
from edgesparse.methods.training.recipe import Recipe, inference
from edgesparse.spec.step import Distill

_COMPARED = 64
"""Samples that are read twice, to see whether each pass gives the same ones."""
_BATCH = 64
_SMALLEST = 1e-7
_CLASSES = ("classification", "segmentation", "multi-label")


class Teacher:
    """The dense model, and its outputs for the training samples.

    Args:
        model: the dense model, with the inputs and outputs of the models that learn from it.
        settings: the step's settings.
    """

    def __init__(self, model: tf.keras.Model, settings: Distill) -> None:
        self.settings = settings
        self.infer = inference(model)
        self.outputs = model.outputs
        self.is_used = False
        self._answered: tuple[Split, tf.data.Dataset | None] | None = None

    def answers(self, dataset: Dataset, recipe: Recipe) -> tf.data.Dataset | None:
        """Return the outputs for each training sample, computed once; None where each pass over the
        samples gives others (shuffled, augmented) or the outputs take too much memory: they are
        then computed for each batch."""
        self.is_used = True
        if self._answered is None or self._answered[0] is not dataset.train:
            self._answered = (dataset.train, self._computed(dataset, recipe))
        return self._answered[1]

    def _computed(self, dataset: Dataset, recipe: Recipe) -> tf.data.Dataset | None:
        values = sum(math.prod(size or 1 for size in t.shape[1:]) for t in self.outputs)
        if 4 * values * dataset.train.count > HELD_BYTES or not _is_repeatable(dataset.train):
            return None
        inputs = dataset.train.samples.map(arrangement(recipe)).map(lambda x, *_: x)
        batches = [tf.nest.flatten(self.infer(x)) for x in inputs.batch(_BATCH)]
        outputs = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
        return tf.data.Dataset.from_tensor_slices(outputs)


def _is_repeatable(split: Split) -> bool:
    """Return whether two passes over the samples begin with the same ones."""
    first, second = (
        tf.nest.flatten(next(iter(split.samples.take(_COMPARED).batch(_COMPARED))))
        for _ in range(2)
    )
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@contextmanager
def distilling(
    model: tf.keras.Model, teacher: Teacher, recipe: Recipe, *, has_answers: bool
) -> Iterator[None]:
    """Let the training steps of a model minimize `weight` times its distance from the teacher, plus
    the rest times the losses of targets. Penalties on weights keep theirs; `loss` in the history,
    and validation, are the losses of targets alone.

    Args:
        model: the model, whose steps are Keras' own or call compute_loss() as these do.
        teacher: the teacher.
        recipe: tasks of the outputs.
        has_answers: batches have the teacher's outputs beside x; see batching.batched.
    """
    train_step, compute_loss = model.train_step, model.compute_loss
    weight = teacher.settings.weight
    current: list[Any] = []  # The teacher's outputs, within a training step.

    def distilled_step(data: Any) -> Any:
        x, *rest = data
        x, outputs = x if has_answers else (x, teacher.infer(x))
        current[:] = [tf.stop_gradient(value) for value in tf.nest.flatten(outputs)]
        try:
            return train_step((x, *rest))
        finally:
            current.clear()

    def distilled_loss(
        x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> Any:
        loss = compute_loss(x, y, y_pred, sample_weight)
        if not current:
            return loss
        penalties = tf.add_n(model.losses) if model.losses else 0.0
        learned = distance(recipe, current, tf.nest.flatten(y_pred), teacher.settings.temperature)
        return (1 - weight) * (loss - penalties) + penalties + weight * learned

    model.train_step, model.compute_loss = distilled_step, distilled_loss
    try:
        yield
    finally:
        del model.train_step, model.compute_loss
        model.train_function = None  # It was traced with the teacher.


def distance(recipe: Recipe, teacher: list[Any], outputs: list[Any], temperature: float) -> Any:
    """Return the mean distance between outputs and the teacher's, summed by `loss_weights`.

    Classes and labels: the Kullback-Leibler divergence of softened outputs, times the temperature's
    square, which keeps its gradients at the scale of the losses of targets. Others: the mean
    squared error.

    Args:
        recipe: tasks of the outputs.
        teacher: a tensor [n, ...] for each output.
        outputs: the same of the model that learns.
        temperature: divisor of logits.
    """
    resolved = recipe.resolved.get("outputs", dict.fromkeys(recipe.tasks, recipe.resolved))
    total = 0.0
    for name, loss_weight, expected, actual in zip(
        recipe.tasks, recipe.loss_weights, teacher, outputs, strict=True
    ):
        activation = recipe.output_activations.get(name, "")
        values = tf.cast(expected, tf.float32), tf.cast(actual, tf.float32)
        kind = _kind(resolved[name], activation)
        is_logits = activation not in ("softmax", "sigmoid") and resolved[name].get("logits", False)
        total += loss_weight * _output_distance(*values, kind, is_logits, temperature)
    return total


def _output_distance(
    teacher: Any, output: Any, kind: str | None, is_logits: bool, temperature: float
) -> Any:
    if kind is None:
        return tf.reduce_mean(tf.math.squared_difference(teacher, output))
    logits = [v if is_logits else _as_logits(v, kind) for v in (teacher, output)]
    expected, actual = (_log_probabilities(z / temperature, kind) for z in logits)
    divergence = tf.reduce_sum(tf.exp(expected) * (expected - actual), axis=-1)
    return temperature**2 * tf.reduce_mean(divergence)


def _kind(task: Mapping[str, Any], activation: str) -> str | None:
    """Return softmax or sigmoid for an output of classes or labels, None for one of numbers."""
    if task["name"] not in _CLASSES:
        return "softmax" if activation == "softmax" else None
    is_binary = task["name"] == "multi-label" or task.get("binary") or activation == "sigmoid"
    return "sigmoid" if is_binary else "softmax"


def _as_logits(probabilities: Any, kind: str) -> Any:
    logits = tf.math.log(probabilities + _SMALLEST)
    return logits if kind == "softmax" else logits - tf.math.log(1 - probabilities + _SMALLEST)


def _log_probabilities(logits: Any, kind: str) -> Any:
    """Return log probabilities, of each class; or of yes and no for each label [..., 2]."""
    if kind == "softmax":
        return tf.nn.log_softmax(logits)
    return tf.math.log_sigmoid(tf.stack([logits, -logits], axis=-1))
