"""Keras fit with seeds, progress and the best weights kept; or a user's own loop in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, representative
from edgesparse.methods.network.functional import arranged
from edgesparse.methods.training import batch_norm, compile_args
from edgesparse.methods.training.batching import arrangement, batched
from edgesparse.methods.training.callbacks import BestWeights, Progress, ProgressReport
from edgesparse.methods.training.checkpoints import Checkpointing
from edgesparse.methods.training.distillation import distilling
from edgesparse.methods.training.recipe import (
    Compiled,
    Recipe,
    build_recipe,
    by_name,
    evaluate,
    inference,
    predict_split,
)
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError, summary_of
from edgesparse.spec.pipeline import Quantize
from edgesparse.spec.sparsify import FineTune
from edgesparse.spec.training import Train

History = dict[str, list[float]]

COMPARISON_SAMPLES = 8
NOT_REPEATABLE = "not_repeatable"
STOPPED = "stopped_epoch"
RECALIBRATED = "settled_batch_norm"
"""Values of the validation metric, before and after."""
RESUMED = "resumed_epoch"
"""Keys of a history with a single value: events of the training."""


def make_repeatable(seed: int, deterministic: bool = True) -> None:
    """Seed Python, NumPy and TensorFlow, and select deterministic operators."""
    from tensorflow.python.framework import config

    tf.keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    else:
        config.disable_op_determinism()


def fine_tune(train: Train, spec: FineTune | Quantize, share: float) -> Train:
    """Return training settings with the epochs, learning rate and batch size of a later step.

    Args:
        train: settings of the dense model's training.
        spec: the step, or the quantization-aware training.
        share: default of the learning rate, relative to the training's.
    """
    rate = spec.learning_rate or train.learning_rate * share
    return train.model_copy(
        update={
            "epochs": spec.epochs,
            "learning_rate": rate,
            "batch_size": spec.batch_size or train.batch_size,
            "early_stopping": None,
        }
    )


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    return math.ceil(dataset.train.count / batch_size)


def recipe_of(model: tf.keras.Model, dataset: Dataset, train: Train) -> Recipe:
    """Return the dataset's recipe, or one inferred from model and data."""
    if isinstance(dataset.recipe, Recipe):
        return dataset.recipe
    return build_recipe(model, dataset, train, compiled=Compiled())


def comparison_samples(model: tf.keras.Model, dataset: Dataset) -> Any:
    """Return a few calibration samples in the form of the model, to compare outputs."""
    return arranged(model, representative(dataset, COMPARISON_SAMPLES))


def check_fit(model: tf.keras.Model, dataset: Dataset, train: Train | None = None) -> None:
    """Raise UsageError where the model's inputs or outputs do not suit the dataset."""
    previous = dataset.recipe
    spec = previous.task_spec if isinstance(previous, Recipe) else None
    base = previous.base if isinstance(previous, Recipe) else Path()
    recipe = build_recipe(model, dataset, train or Train(), spec, base=base, compiled=Compiled())
    if isinstance(previous, Recipe) and len(previous.tasks) != len(recipe.tasks):
        raise EdgesparseError(
            "the method changed the number of outputs "
            f"({len(previous.tasks)} -> {len(recipe.tasks)})"
        )


def compile_for(model: tf.keras.Model, train: Train, recipe: Recipe, steps: int) -> None:
    """Compile a model for a training with `steps` per epoch."""
    rate = compile_args.learning_rate(train, steps)
    model.compile(
        optimizer=compile_args.optimizer(train, recipe, rate),
        loss=compile_args.losses(train, recipe),
        metrics=compile_args.metrics(train, recipe),
        loss_weights=list(recipe.loss_weights) if recipe.is_multi_output else None,
    )


def check_losses(model: tf.keras.Model, dataset: Dataset, train: Train, recipe: Recipe) -> None:
    """Compute the losses of a sample, so that errors show before training.

    Raises:
        UsageError: a loss does not take the targets; or it, or the model, raises.
    """
    if train.ref is not None:  # A user's loop can call the model in other ways.
        return
    compile_for(model, train, recipe, 1)
    x, y, *weights = next(iter(dataset.train.samples.take(1).map(arrangement(recipe)).batch(1)))
    try:
        outputs = model(x, training=False)
        compile_args.check_shapes(train, recipe, tf.nest.flatten(y), tf.nest.flatten(outputs))
        model.compute_loss(x, y, outputs, weights[0] if weights else None)
    except EdgesparseError:
        raise
    except Exception as error:
        raise UsageError(f"the loss of a training sample: {summary_of(error)}") from error


def fit(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    progress: Progress,
    *,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    best_from_epoch: int = 0,
    extra: Sequence[tf.keras.callbacks.Callback] = (),
) -> History:
    """Train in place and restore the best weights.

    The best epoch is that with the best validation metric; the lower loss decides between equals.

    Args:
        model: the model, which is compiled here.
        dataset: its data, with the recipe.
        train: settings.
        progress: callback.
        callbacks: callbacks of the caller, such as those that apply masks.
        best_from_epoch: earlier epochs are never the best; for pruning, whose early epochs have
            not reached their sparsity yet.
        extra: more callbacks, of the training of the dense model only.

    Returns:
        A value per epoch of loss, val_loss and each metric.

    Raises:
        EdgesparseError: the loss becomes NaN.
    """
    if train.epochs == 0:
        return {}
    recipe = recipe_of(model, dataset, train)
    # Seeded for each fit: earlier trainings in this process have no effect.
    make_repeatable(train.seed, train.deterministic is not False)
    steps = steps_per_epoch(dataset, train.batch_size)
    compile_args.regularize(model, train)
    compile_for(model, train, recipe, steps)
    best = BestWeights(best_from_epoch, train.early_stopping, recipe, dataset)
    folder = dataset.checkpoints.next() if dataset.checkpoints and train.ref is None else None
    resumed = Checkpointing(folder, best, callbacks) if folder else None
    every_callback = [*callbacks, *compile_args.callbacks(train, recipe), *extra, best]
    every_callback += [resumed] if resumed else []
    every_callback.append(ProgressReport(progress, train.epochs, steps, best))
    first = resumed.restore(model) if resumed else 0
    history = _train_repeatably(model, dataset, train, recipe, every_callback, first, best)
    if best.weights is not None:
        model.set_weights(best.weights)
    elif best.seen or not train.ref:
        invalid = _invalid_data(dataset, recipe)
        raise EdgesparseError(f"the training diverged (the loss is NaN){invalid}")
    record = _record(history, best, resumed, first, train)
    return {**record, **_recalibrated(model, dataset, train, recipe, record)}


def _train_repeatably(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    recipe: Recipe,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    first: int,
    best: BestWeights,
) -> Mapping[str, Any]:
    """Train with deterministic operators; without, with a note, where the model has others."""
    before = model.get_weights() if train.deterministic == "auto" else []
    try:
        return _train(model, dataset, train, recipe, callbacks, first)
    except (tf.errors.OpError, RuntimeError) as error:
        if train.deterministic != "auto" or "determinis" not in str(error).lower():
            raise
        # An operation without a deterministic form, or a random one without a seed.
        make_repeatable(train.seed, deterministic=False)
        model.set_weights(before)
        compile_for(model, train, recipe, steps_per_epoch(dataset, train.batch_size))
        best.reset()
        return {**_train(model, dataset, train, recipe, callbacks), NOT_REPEATABLE: [1.0]}


def _record(
    history: Mapping[str, Any],
    best: BestWeights,
    resumed: Checkpointing | None,
    first: int,
    train: Train,
) -> History:
    """Return the values per epoch, with those of an interrupted training before its epoch `first`;
    ends its checkpoints."""
    record = {name: [float(v) for v in values] for name, values in history.items()}
    if resumed is not None:
        if first:
            record = dict(resumed.history)
            if first < train.epochs:
                record[RESUMED] = [float(first)]
        resumed.done(train.epochs)
    record |= {name: values for name, values in best.computed.items() if values}
    if best.stopped is not None:
        record[STOPPED] = [float(best.stopped)]
    return record


def _recalibrated(
    model: tf.keras.Model, dataset: Dataset, train: Train, recipe: Recipe, history: History
) -> History:
    """Recompute batch normalization's statistics if requested, or if stale and it helps."""
    requested = train.recalibrate_batch_norm
    tried = requested or (
        requested is None and any(batch_norm.is_stale(history, name) for name in batch_norm.SHARES)
    )
    if not tried or not batch_norm.recalibratable(model):
        return {}
    weights, before = model.get_weights(), _validation_metric(model, dataset, recipe)
    batch_norm.recalibrate(model, batched(dataset, train, recipe)[0])
    after = _validation_metric(model, dataset, recipe)
    if not requested and recipe.metric.drop(before, after) >= 0:
        model.set_weights(weights)
        return {}
    return {RECALIBRATED: [before, after]}


def _validation_metric(model: tf.keras.Model, dataset: Dataset, recipe: Recipe) -> float:
    outputs, targets = predict_split(inference(model), dataset.validation, recipe)
    return recipe.metric.compute(outputs[recipe.primary_output], targets[recipe.primary_output])


def _train(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    recipe: Recipe,
    callbacks: Sequence[Any],
    first_epoch: int = 0,
) -> Mapping[str, Sequence[float]]:
    teacher = dataset.teacher
    answers = None if teacher is None else teacher.answers(dataset, recipe)
    batches, validation = batched(dataset, train, recipe, answers)
    if train.ref is not None:
        target = references.find("training", None, train.ref, recipe.base)
        supplied = {
            "model": model,
            "dataset": dataset,
            "train": train,
            "callbacks": list(callbacks),
            "batches": batches,
            "validation": validation,
        }
        result = references.call(target, train.args, supplied)
        history = getattr(result, "history", result)
        return history if isinstance(history, Mapping) else {}
    learns: AbstractContextManager[None] = nullcontext()
    if teacher is not None:
        learns = distilling(model, teacher, recipe, has_answers=answers is not None)
    with learns:
        history = model.fit(
            batches,
            initial_epoch=min(first_epoch, train.epochs),
            epochs=train.epochs,
            validation_data=validation,
            verbose=0,
            class_weight=compile_args.class_weights(train, dataset, recipe),
            callbacks=list(callbacks),
        )
    values: Mapping[str, Sequence[float]] = history.history
    return values


def batch_gradients(
    model: tf.keras.Model, dataset: Dataset, train: Train
) -> Callable[[Sequence[Any]], list[np.ndarray]]:
    """Return a function that computes the loss's gradients for variables, on another batch of
    training data at each call; the model must be compiled by then."""
    batches, _ = batched(dataset, train, recipe_of(model, dataset, train))
    iterator = iter(batches.repeat())

    @tf.function
    def gradients(variables: Any, x: Any, y: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), weights)
        return tape.gradient(loss, variables)

    def next_gradients(variables: Sequence[Any]) -> list[np.ndarray]:
        x, y, *weights = next(iterator)
        values = gradients(list(variables), x, y, weights[0] if weights else None)
        return [tf.convert_to_tensor(value).numpy() for value in values]

    return next_gradients


def _invalid_data(dataset: Dataset, recipe: Recipe) -> str:
    """Return the cause of a divergence: NaN in the training data, else the learning rate."""
    first = 0
    for batch in dataset.train.samples.batch(256).take(40):
        xs, ys = by_name(recipe, *batch[:2])
        for name, tensor in (*xs.items(), *ys.items()):
            values = tensor.numpy()
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                at = int(np.argwhere(~np.isfinite(values))[0][0]) + first
                return f": {name} contains NaN or inf in training sample {at}"
        first += len(next(iter(xs.values())))
    return "; lower learning_rate"


def training_notes(history: Mapping[str, Sequence[float]], what: str = "training") -> list[str]:
    """Return notes under the table on events of a training or fine-tuning."""
    notes = []
    if NOT_REPEATABLE in history:
        notes.append(f"{what} is non-deterministic: an op has no deterministic implementation")
    if RESUMED in history:
        notes.append(f"{what} was interrupted and resumed after epoch {history[RESUMED][0]:.0f}")
    if STOPPED in history:
        notes.append(f"{what} stopped early, after epoch {history[STOPPED][0]:.0f}")
    if RECALIBRATED in history:
        before, after = history[RECALIBRATED]
        notes.append(
            f"{what}: batch-norm statistics were stale and have been recalibrated: "
            f"validation metric {before:.3g} -> {after:.3g} (train.recalibrate_batch_norm)"
        )
    return notes


def scores(model: tf.keras.Model, dataset: Dataset, train: Train | None = None) -> dict[str, float]:
    """Return every metric of the Keras model on the test split, by name."""
    recipe = recipe_of(model, dataset, train or Train())
    return evaluate(model, dataset.test, recipe)
