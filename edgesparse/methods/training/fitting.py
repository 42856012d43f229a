"""Keras fit with seeds, progress and the best weights kept; or a user's own loop in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, representative
from edgesparse.methods.network.functional import arranged
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training import batch_norm, compile_args
from edgesparse.methods.training.callbacks import KeepBest, Progress, Report
from edgesparse.methods.training.checkpoints import Resumed
from edgesparse.methods.training.recipe import (
    Compiled,
    Recipe,
    answered,
    asking,
    evaluate,
    named,
    put_together,
)
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean, summary_of
from edgesparse.spec.pipeline import Quantize
from edgesparse.spec.sparsify import FineTune, matches
from edgesparse.spec.training import Train

History = dict[str, list[float]]

HELD_BYTES = 128_000_000
"""Of samples that are held in memory for shuffling, and for validation."""
COMPARED = 8
_SHUFFLED = 10_000
NOT_REPEATABLE = "not_repeatable"
STOPPED = "stopped_epoch"
SETTLED = "settled_batch_norm"
"""Of the validation metric, before and after."""
RESUMED = "resumed_epoch"
"""Keys of a history with one value: of what happened."""


def make_repeatable(seed: int, deterministic: bool = True) -> None:
    """Seed Python, NumPy and TensorFlow, and choose operators that give equal sums each time."""
    from tensorflow.python.framework import config

    tf.keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    else:
        config.disable_op_determinism()


def fine_tune(train: Train, spec: FineTune | Quantize, share: float) -> Train:
    """The training's settings with the epochs and the learning rate of a later step; `share` is the
    default of the latter, relative to the training's."""
    rate = spec.learning_rate or train.learning_rate * share
    return train.model_copy(
        update={"epochs": spec.epochs, "learning_rate": rate, "early_stopping": None}
    )


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    return math.ceil(dataset.train.count / batch_size)


def recipe_of(model: tf.keras.Model, dataset: Dataset, train: Train) -> Recipe:
    """The dataset's, or what model and data suggest."""
    if isinstance(dataset.recipe, Recipe):
        return dataset.recipe
    return put_together(model, dataset, train, compiled=Compiled())


def compared(model: tf.keras.Model, dataset: Dataset) -> Any:
    """A few calibration samples as the model takes them, for answers before and after a change."""
    return arranged(model, representative(dataset, COMPARED))


def check_fit(model: tf.keras.Model, dataset: Dataset, train: Train | None = None) -> None:
    """Raise UsageError where the model's inputs or outputs do not suit the dataset."""
    known = dataset.recipe
    asked = known.asked if isinstance(known, Recipe) else None
    base = known.base if isinstance(known, Recipe) else Path()
    recipe = put_together(model, dataset, train or Train(), asked, base=base, compiled=Compiled())
    if isinstance(known, Recipe) and len(known.tasks) != len(recipe.tasks):
        raise EdgesparseError("the model has another number of outputs than before")


def compile_for(model: tf.keras.Model, train: Train, recipe: Recipe, steps: int) -> None:
    """Compile a model for a training of `steps` a epoch."""
    rate = compile_args.learning_rate(train, steps)
    model.compile(
        optimizer=compile_args.optimizer(train, recipe, rate),
        loss=compile_args.losses(train, recipe),
        metrics=compile_args.metrics(train, recipe),
        loss_weights=list(recipe.loss_weights) if recipe.is_multi_output else None,
    )


def check_losses(model: tf.keras.Model, dataset: Dataset, train: Train, recipe: Recipe) -> None:
    """Compute the losses of one sample, so that what would end the training ends nothing later.

    Raises:
        UsageError: a loss does not take the targets; or it, or the model, raises.
    """
    if train.ref is not None:  # A loop of the user's own may call the model in other ways.
        return
    compile_for(model, train, recipe, 1)
    x, y, *weights = next(iter(dataset.train.samples.take(1).map(_arranged(recipe)).batch(1)))
    try:
        outputs = model(x, training=False)
        compile_args.check_shapes(train, recipe, tf.nest.flatten(y), tf.nest.flatten(outputs))
        model.compute_loss(x, y, outputs, weights[0] if weights else None)
    except EdgesparseError:
        raise
    except Exception as error:
        raise UsageError(f"the loss of a training sample: {summary_of(error)}") from error


def _regularize(model: tf.keras.Model, train: Train) -> None:
    """Add the plain penalties on kernels to the model's losses, once.

    Raises:
        UsageError: a glob matches nothing.
    """
    spec, done = train.regularize, "_edgesparse_regularized"
    if spec is None or getattr(model, done, False):
        return
    found = kernels(model)
    known = {name for kernel in found.values() for name in kernel.names}
    for glob in spec.layers:
        if not matches(glob, known):
            hint = did_you_mean(glob, known)
            raise UsageError(f"train.regularize: {glob!r} matches no layer with a kernel{hint}")
    chosen = [k.variable for k in found.values() if matches(spec.layers, k.names)]
    penalty = tf.keras.regularizers.L1L2(spec.l1, spec.l2)
    model.add_loss(lambda: tf.add_n([penalty(variable) for variable in chosen]))
    setattr(model, done, True)


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
    """Train in place and leave the best weights in the model.

    Best is the epoch with the best validation metric, the lower loss deciding between equals.

    Args:
        callbacks: what the caller needs to hold masks.
        best_from_epoch: earlier epochs are never the best; for pruning, whose early epochs have
            not reached their sparsity yet.
        extra: more callbacks, of the training of the dense model only.

    Returns:
        A value per epoch of loss, val_loss and each metric.

    Raises:
        EdgesparseError: the loss is no longer a number.
    """
    if train.epochs == 0:
        return {}
    recipe = recipe_of(model, dataset, train)
    # Each fit is seeded anew: what was trained before in this process makes no difference.
    make_repeatable(train.seed, train.deterministic is not False)
    steps = steps_per_epoch(dataset, train.batch_size)
    _regularize(model, train)
    compile_for(model, train, recipe, steps)
    best = KeepBest(best_from_epoch, train.early_stopping, recipe, dataset)
    report = Report(progress, train.epochs, steps, best)
    own = compile_args.callbacks(train, recipe)
    place = dataset.checkpoints.next() if dataset.checkpoints and train.ref is None else None
    resumed = Resumed(place, best, callbacks) if place else None
    given = [*callbacks, *own, *extra, best, *([resumed] if resumed else []), report]
    first = resumed.restore(model) if resumed else 0
    before = model.get_weights() if train.deterministic == "auto" else []
    try:
        history = _fitted(model, dataset, train, recipe, given, first)
    except (tf.errors.OpError, RuntimeError) as error:
        if train.deterministic != "auto" or "determinis" not in str(error).lower():
            raise
        # An operation without a repeatable form, or a random one without a seed: it is said.
        make_repeatable(train.seed, deterministic=False)
        model.set_weights(before)
        compile_for(model, train, recipe, steps)
        best.begin_again()
        history = {**_fitted(model, dataset, train, recipe, given), NOT_REPEATABLE: [1.0]}
    if best.weights is None and (best.seen or not train.ref):
        raise EdgesparseError(
            f"the training diverged (loss is not a number){_why(dataset, recipe)}"
        )
    if best.weights is not None:
        model.set_weights(best.weights)
    found = {name: [float(v) for v in values] for name, values in history.items()}
    if resumed is not None:
        if first:
            found = dict(resumed.history)
            if first < train.epochs:
                found[RESUMED] = [float(first)]
        resumed.done(train.epochs)
    found |= {name: values for name, values in best.computed.items() if values}
    if best.stopped is not None:
        found[STOPPED] = [float(best.stopped)]
    return {**found, **_settled(model, dataset, train, recipe, found)}


def _settled(
    model: tf.keras.Model, dataset: Dataset, train: Train, recipe: Recipe, history: History
) -> History:
    """Recompute batch normalization's statistics: where that is asked for, or where they seem to be
    behind and it helps."""
    asked = train.recalibrate_batch_norm
    tried = asked or (
        asked is None and any(batch_norm.behind(history, name) for name in batch_norm.SHARES)
    )
    if not tried or not batch_norm.unsettled(model):
        return {}
    weights, before = model.get_weights(), _validated(model, dataset, recipe)
    batch_norm.settle(model, _batches(dataset, train, recipe)[0])
    after = _validated(model, dataset, recipe)
    if not asked and recipe.metric.drop(before, after) >= 0:
        model.set_weights(weights)
        return {}
    return {SETTLED: [before, after]}


def _validated(model: tf.keras.Model, dataset: Dataset, recipe: Recipe) -> float:
    outputs, targets = answered(asking(model), dataset.validation, recipe)
    return recipe.metric.compute(outputs[recipe.primary_output], targets[recipe.primary_output])


def _fitted(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    recipe: Recipe,
    callbacks: Sequence[Any],
    first_epoch: int = 0,
) -> Mapping[str, Sequence[float]]:
    batches, validation = _batches(dataset, train, recipe)
    if train.ref is not None:
        target = references.find("training", None, train.ref, recipe.base)
        given = {
            "model": model,
            "dataset": dataset,
            "train": train,
            "callbacks": list(callbacks),
            "batches": batches,
            "validation": validation,
        }
        result = references.call(target, train.args, given)
        history = getattr(result, "history", result)
        return history if isinstance(history, Mapping) else {}
    history = model.fit(
        batches,
        initial_epoch=min(first_epoch, train.epochs),
        epochs=train.epochs,
        validation_data=validation,
        verbose=0,
        class_weight=compile_args.class_weights(train, dataset, recipe),
        callbacks=list(callbacks),
    )
    found: Mapping[str, Sequence[float]] = history.history
    return found


def _batches(dataset: Dataset, train: Train, recipe: Recipe) -> tuple[Any, Any]:
    """Training and validation, in batches, as the model takes them."""
    size = _sample_bytes(dataset)
    held = max(2 * train.batch_size, HELD_BYTES // size)
    arrange = _arranged(recipe)
    training = dataset.train.samples
    if _has_labels(recipe):
        training = training.filter(lambda x, y, *_: tf.reduce_all(tf.equal(y, 0)))
    batches = (
        training.shuffle(min(dataset.train.count, _SHUFFLED, held), seed=train.seed)
        .map(arrange)
        .batch(train.batch_size)
        .prefetch(2)
    )
    validation = dataset.validation.samples.map(arrange).batch(train.batch_size)
    if dataset.validation.count * size <= HELD_BYTES:
        validation = validation.cache()  # Decoded once: it is asked every epoch.
    return batches, validation.prefetch(2)


def one_batch(
    model: tf.keras.Model, dataset: Dataset, train: Train
) -> Callable[[Sequence[Any]], list[np.ndarray]]:
    """What gives the loss's gradients for variables, each time on another batch of training data;
    of a model that is compiled by then."""
    batches, _ = _batches(dataset, train, recipe_of(model, dataset, train))
    given = iter(batches.repeat())

    @tf.function
    def gradients(variables: Any, x: Any, y: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), weights)
        return tape.gradient(loss, variables)

    def ask(variables: Sequence[Any]) -> list[np.ndarray]:
        x, y, *weights = next(given)
        found = gradients(list(variables), x, y, weights[0] if weights else None)
        return [tf.convert_to_tensor(one).numpy() for one in found]

    return ask


def _has_labels(recipe: Recipe) -> bool:
    return bool(recipe.resolved.get("labels"))


def _arranged(recipe: Recipe) -> Callable[..., Any]:
    """Brings the data's names into the model's order."""

    def arrange(x: Any, y: Any, *weights: Any) -> Any:
        named_x, named_y = named(recipe, x, y)
        xs = tuple(named_x[name] for name in recipe.inputs)
        ys = tuple(named_y[name] for name in recipe.targets)
        if _has_labels(recipe):
            ys = (xs[0],)
        return (xs[0] if len(xs) == 1 else xs, ys[0] if len(ys) == 1 else ys, *weights)

    return arrange


def _sample_bytes(dataset: Dataset) -> int:
    tensors = [*dataset.inputs.values(), *dataset.targets.values()]
    sizes = [
        math.prod(size or 1 for size in tensor.shape) * np.dtype(tensor.dtype).itemsize
        for tensor in tensors
    ]
    return max(1, sum(sizes))


def _why(dataset: Dataset, recipe: Recipe) -> str:
    """Which of the data is no number, where that is why."""
    place = 0
    for batch in dataset.train.samples.batch(256).take(40):
        xs, ys = named(recipe, *batch[:2])
        for name, tensor in (*xs.items(), *ys.items()):
            values = tensor.numpy()
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                at = int(np.argwhere(~np.isfinite(values))[0][0]) + place
                return f": {name} of training sample {at} has values that are no numbers"
        place += len(next(iter(xs.values())))
    return "; lower learning_rate"


def told(history: Mapping[str, Sequence[float]], what: str = "training") -> list[str]:
    """What is to be said under the table of how a training, or fine-tuning, went."""
    notes = []
    if NOT_REPEATABLE in history:
        notes.append(f"{what} is not repeatable: an operation of it has no repeatable form")
    if RESUMED in history:
        notes.append(f"{what} was interrupted and went on after epoch {history[RESUMED][0]:.0f}")
    if STOPPED in history:
        notes.append(f"{what} stopped early, after epoch {history[STOPPED][0]:.0f}")
    if SETTLED in history:
        before, after = history[SETTLED]
        notes.append(
            f"{what}: the statistics of batch normalization were behind and were recomputed: "
            f"validation metric {before:.3g} -> {after:.3g} (train.recalibrate_batch_norm)"
        )
    return notes


def scores(model: tf.keras.Model, dataset: Dataset, train: Train | None = None) -> dict[str, float]:
    """Every metric of the Keras model on the test split; accuracy among them for classification."""
    recipe = recipe_of(model, dataset, train or Train())
    return evaluate(model, dataset.test, recipe)
