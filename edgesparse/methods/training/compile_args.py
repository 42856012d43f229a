"""Arguments of Keras' compile() and fit(): optimizer, learning rate, losses, metrics, callbacks.

They come from the pipeline, the model's own compile(), or the task, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training.class_counts import label_counts
from edgesparse.methods.training.recipe import Recipe, takes_logits
from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError, cause_of, did_you_mean
from edgesparse.spec.sparsify import matches
from edgesparse.spec.training import LearningRate, Train


class Scheduled(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate by step: warm-up, then one of Keras' schedules."""

    def __init__(self, after: Any, warm_up_steps: int) -> None:
        super().__init__()
        self.after, self.warm_up_steps = after, warm_up_steps

    def __call__(self, step: Any) -> Any:
        step = tf.cast(step, tf.float32)
        late = tf.maximum(0.0, step - self.warm_up_steps)
        rate = self.after(late) if callable(self.after) else self.after
        return rate * tf.minimum(1.0, (step + 1) / max(1, self.warm_up_steps))

    def get_config(self) -> dict[str, Any]:
        return {"after": self.after, "warm_up_steps": self.warm_up_steps}


_PROBABLE = ("classification", "multi-label", "segmentation")
_CROSS_ENTROPIES = (
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "binary_crossentropy",
)


def learning_rate(train: Train, steps_per_epoch: int) -> Any:
    """Return the learning rate: a number, or a Keras schedule over steps."""
    schedule, rate = train.schedule, train.learning_rate
    warm = round(schedule.warmup_epochs * steps_per_epoch)
    after = _after(schedule, rate, steps_per_epoch, train.epochs * steps_per_epoch - warm)
    return Scheduled(after, warm) if warm else after


def _after(schedule: LearningRate, rate: float, per_epoch: int, steps: int) -> Any:
    schedules = tf.keras.optimizers.schedules
    if schedule.name == "cosine":
        return schedules.CosineDecay(rate, max(1, steps))
    if schedule.name in ("step", "exponential"):
        every = max(1, round(schedule.epochs * per_epoch))
        staircase = schedule.name == "step"
        return schedules.ExponentialDecay(rate, every, schedule.factor, staircase=staircase)
    if schedule.name == "piecewise":
        boundaries = [round(epoch * per_epoch) for epoch in schedule.boundaries]
        return schedules.PiecewiseConstantDecay(
            boundaries, [rate, *(rate * factor for factor in schedule.factors)]
        )
    return rate


def optimizer(train: Train, recipe: Recipe, rate: Any) -> Any:
    """Return the pipeline's optimizer, the compiled model's, or Adam.

    Raises:
        UsageError: Keras does not have it, or refuses its arguments.
    """
    if train.optimizer is not None:
        kind = _keras_object(train.optimizer.name, tf.keras.optimizers, "train.optimizer")
        return _construct("train.optimizer", kind, {"learning_rate": rate, **train.optimizer.args})
    compiled = recipe.compiled.optimizer
    if compiled is None:
        return tf.keras.optimizers.Adam(rate)
    return type(compiled).from_config({**compiled.get_config(), "learning_rate": rate})


def losses(train: Train, recipe: Recipe) -> Any:
    """Return the losses of the outputs, in their order; for a single output, its loss."""
    if train.loss is not None:
        kind = _keras_object(train.loss.name, tf.keras.losses, "train.loss")
        loss = _construct("train.loss", kind, train.loss.args) if isinstance(kind, type) else kind
        return [loss for _ in recipe.tasks] if recipe.is_multi_output else loss
    compiled = recipe.compiled.loss
    if compiled is not None:
        if isinstance(compiled, Mapping):
            return [compiled[name] for name in recipe.tasks]
        return compiled
    task_losses = [task.loss() for task in recipe.tasks.values()]
    return task_losses if recipe.is_multi_output else task_losses[0]


def loss_warnings(train: Train, recipe: Recipe) -> list[str]:
    """Return warnings about losses of the user that do not fit the model's outputs."""
    if train.loss is None and recipe.compiled.loss is None:
        return []
    lines = []
    for loss, (output, task) in zip(_each(train, recipe), recipe.tasks.items(), strict=False):
        name = _name(loss)
        if task.name not in _PROBABLE or name not in _CROSS_ENTROPIES:
            continue
        logits, end = bool(takes_logits(loss)), recipe.output_activations.get(output, "")
        if end == "linear" and not logits:
            lines.append(
                f"the loss expects probabilities but output {output} is linear; set "
                "from_logits=True or add softmax or sigmoid"
            )
        elif end in ("softmax", "sigmoid") and logits:
            lines.append(
                f"the loss expects logits but output {output} ends in {end}; remove "
                "from_logits=True or the activation"
            )
    return lines


def _each(train: Train, recipe: Recipe) -> list[Any]:
    """Return the loss of each output as a list."""
    chosen = losses(train, recipe)
    return list(chosen) if isinstance(chosen, list | tuple) else [chosen]


def _name(loss: Any) -> str:
    """Return Keras' name of a loss, such as categorical_crossentropy."""
    named = loss if isinstance(loss, str) else getattr(loss, "name", "")
    return named or str(getattr(loss, "__name__", ""))


def check_shapes(
    train: Train, recipe: Recipe, targets: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Check that Keras' own losses compare tensors of the same shape; else Keras would fail during
    training, or broadcast silently.

    Args:
        train: the training settings.
        recipe: the recipe.
        targets: a tensor [n, ...] for each output of the model.
        outputs: the model's outputs for the same samples.

    Raises:
        UsageError: shapes differ; the message names a loss that fits.
    """
    for loss, name, target, output in zip(
        _each(train, recipe), recipe.tasks, targets, outputs, strict=False
    ):
        keras_loss = isinstance(loss, str) or "keras" in str(getattr(loss, "__module__", ""))
        of_target, of_output = ([n for n in t.shape[1:] if n != 1] for t in (target, output))
        loss_name, of_labels = _name(loss), of_output[:-1]
        sparse = "sparse" in loss_name
        if not keras_loss or of_target == (of_labels if sparse else of_output):
            continue
        hint = ""
        if of_target == of_labels and target.dtype.is_integer:
            hint = f"; for integer labels write 'train: {{loss: {_like(loss, 'sparse_')}}}'"
        elif sparse and of_target == of_output:
            hint = f"; for one-hot targets write 'train: {{loss: {_like(loss, '')}}}'"
        raise UsageError(
            f"the loss {loss_name} cannot compare targets {target.dtype.name} "
            f"{list(target.shape[1:])} with the output {name} {list(output.shape[1:])}{hint}"
        )


def _like(loss: Any, prefix: str) -> str:
    """Return the cross-entropy for integer labels (prefix `sparse_`), or for one-hot targets, in
    YAML, with the from_logits of `loss`."""
    name = f"{prefix}categorical_crossentropy"
    if not takes_logits(loss):
        return name
    return f"{{name: {name.title().replace('_', '')}, from_logits: true}}"


def metrics(train: Train, recipe: Recipe) -> Any:
    """Return new metrics for compile(): a metric object belongs to a single model."""
    extra = [
        _construct(
            "train.metrics", _keras_object(m.name, tf.keras.metrics, "train.metrics"), m.args
        )
        for m in train.metrics
    ]
    compiled = [_copy_metric(metric) for metric in recipe.compiled.metrics]
    task_metrics = [list(task.keras_metrics()) for task in recipe.tasks.values()]
    if recipe.is_multi_output:
        return task_metrics
    names = {str(getattr(metric, "name", metric)) for metric in (*extra, *compiled)}
    return [*(m for m in task_metrics[0] if getattr(m, "name", m) not in names), *extra, *compiled]


def _copy_metric(metric: Any) -> Any:
    return (
        type(metric).from_config(metric.get_config()) if hasattr(metric, "get_config") else metric
    )


def callbacks(train: Train, recipe: Recipe) -> list[Any]:
    """Return the user's callbacks.

    Raises:
        UsageError: a reference does not return a Keras callback.
    """
    built = []
    for reference in train.callbacks:
        target = references.find("training", None, reference.ref, recipe.base, classes=True)
        callback = references.load(target)(**reference.args)
        if not isinstance(callback, tf.keras.callbacks.Callback):
            raise UsageError(
                f"{reference.ref} returned {type(callback).__name__}, not a Keras callback"
            )
        built.append(callback)
    return built


def class_weights(train: Train, dataset: Dataset, recipe: Recipe) -> dict[int, float] | None:
    """Return class weights: the pipeline's, or the inverse of each class's frequency.

    Raises:
        UsageError: the task is not classification with a single output.
    """
    if train.class_weight is None:
        return None
    if recipe.is_multi_output or recipe.resolved["name"] != "classification":
        raise UsageError("train.class_weight requires classification with a single output")
    if train.class_weight != "balanced":
        return dict(train.class_weight)
    counts = label_counts(dataset.train, len(dataset.class_names))
    present = counts > 0
    return {
        label: float(counts.sum() / (present.sum() * count)) if count else 0.0
        for label, count in enumerate(counts.tolist())
    }


def _keras_object(name: str, namespace: Any, key: str) -> Any:
    """Return a class or function of a Keras module. Raises UsageError with similar names."""
    value = getattr(namespace, name, None)
    if not callable(value):
        names = [n for n in dir(namespace) if not n.startswith("_") and n[0].isupper()]
        raise UsageError(f"{key}: Keras has no {name!r}{did_you_mean(name, names)}")
    return value


def _construct(key: str, kind: Any, args: Mapping[str, Any]) -> Any:
    if not isinstance(kind, type):
        return kind
    try:
        return kind(**args)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{key}: {kind.__name__}: {cause_of(error)}") from error


def check(train: Train, dataset: Dataset, recipe: Recipe) -> None:
    """Construct every argument once, so that mistakes show before training. Raises UsageError."""
    optimizer(train, recipe, learning_rate(train, 1))
    losses(train, recipe)
    metrics(train, recipe)
    class_weights(train, dataset, recipe) if train.class_weight != "balanced" else None


def regularize(model: tf.keras.Model, train: Train) -> None:
    """Add the regularization of kernels to the model's losses, once.

    Raises:
        UsageError: a glob matches nothing.
    """
    spec, done = train.regularize, "_edgesparse_regularized"
    if spec is None or getattr(model, done, False):
        return
    every = kernels(model)
    names = {name for kernel in every.values() for name in kernel.names}
    for glob in spec.layers:
        if not matches(glob, names):
            hint = did_you_mean(glob, names)
            raise UsageError(f"train.regularize: {glob!r} matches no layer with a kernel{hint}")
    chosen = [k.variable for k in every.values() if matches(spec.layers, k.names)]
    penalty = tf.keras.regularizers.L1L2(spec.l1, spec.l2)
    model.add_loss(lambda: tf.add_n([penalty(variable) for variable in chosen]))
    setattr(model, done, True)
