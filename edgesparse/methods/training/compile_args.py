"""Keras' parts of a training: optimizer, learning rate, losses, metrics and callbacks.

From what the pipeline says, the model was compiled with, or the task suggests, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.training.class_counts import label_counts
from edgesparse.methods.training.recipe import Recipe, takes_logits
from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError, cause_of, did_you_mean
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
    """A number, or a schedule of Keras over steps."""
    schedule, rate = train.schedule, train.learning_rate
    warm = round(schedule.warmup_epochs * steps_per_epoch)
    after = _after(schedule, rate, steps_per_epoch, train.epochs * steps_per_epoch - warm)
    return Scheduled(after, warm) if warm else after


def _after(schedule: LearningRate, rate: float, per_epoch: int, steps: int) -> Any:
    made = tf.keras.optimizers.schedules
    if schedule.name == "cosine":
        return made.CosineDecay(rate, max(1, steps))
    if schedule.name in ("step", "exponential"):
        every = max(1, round(schedule.epochs * per_epoch))
        staircase = schedule.name == "step"
        return made.ExponentialDecay(rate, every, schedule.factor, staircase=staircase)
    if schedule.name == "piecewise":
        places = [round(epoch * per_epoch) for epoch in schedule.boundaries]
        return made.PiecewiseConstantDecay(
            places, [rate, *(rate * factor for factor in schedule.factors)]
        )
    return rate


def optimizer(train: Train, recipe: Recipe, rate: Any) -> Any:
    """The pipeline's, the compiled model's, or Adam. Raises UsageError."""
    if train.optimizer is not None:
        kind = _named(train.optimizer.name, tf.keras.optimizers, "train.optimizer")
        return _made("train.optimizer", kind, {"learning_rate": rate, **train.optimizer.args})
    own = recipe.compiled.optimizer
    if own is None:
        return tf.keras.optimizers.Adam(rate)
    return type(own).from_config({**own.get_config(), "learning_rate": rate})


def losses(train: Train, recipe: Recipe) -> Any:
    """For each output, in their order; for one output it alone."""
    if train.loss is not None:
        kind = _named(train.loss.name, tf.keras.losses, "train.loss")
        one = _made("train.loss", kind, train.loss.args) if isinstance(kind, type) else kind
        return [one for _ in recipe.tasks] if recipe.is_multi_output else one
    own = recipe.compiled.loss
    if own is not None:
        if isinstance(own, Mapping):
            return [own[name] for name in recipe.tasks]
        return own
    found = [task.loss() for task in recipe.tasks.values()]
    return found if recipe.is_multi_output else found[0]


def doubts(train: Train, recipe: Recipe) -> list[str]:
    """Where a loss of the user's own does not take what the model gives."""
    if train.loss is None and recipe.compiled.loss is None:
        return []
    lines = []
    for loss, (output, task) in zip(_each(train, recipe), recipe.tasks.items(), strict=False):
        name = _name(loss)
        if task.name not in _PROBABLE or name not in _CROSS_ENTROPIES:
            continue
        logits, end = bool(takes_logits(loss)), recipe.ends.get(output, "")
        if end == "linear" and not logits:
            lines.append(
                f"{output} ends in a linear layer, and its loss takes probabilities: it trains "
                "wrongly; give the loss from_logits=True, or let the model end in softmax or "
                "sigmoid"
            )
        elif end in ("softmax", "sigmoid") and logits:
            lines.append(
                f"{output} ends in {end}, and its loss takes logits: it trains wrongly; leave "
                "from_logits=True out, or let the model end in a linear layer"
            )
    return lines


def _each(train: Train, recipe: Recipe) -> list[Any]:
    """A loss for each output."""
    chosen = losses(train, recipe)
    return list(chosen) if isinstance(chosen, list | tuple) else [chosen]


def _name(loss: Any) -> str:
    """As Keras calls it, such as categorical_crossentropy."""
    named = loss if isinstance(loss, str) else getattr(loss, "name", "")
    return named or str(getattr(loss, "__name__", ""))


def check_shapes(
    train: Train, recipe: Recipe, targets: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Whether Keras' own losses compare what has the same shape; else Keras fails in the middle of
    training, or broadcasts in silence.

    Args:
        targets: one tensor [n, ...] for each output of the model.
        outputs: what the model gives for the same samples.

    Raises:
        UsageError: the message names the loss to take.
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
    """The cross-entropy of integer labels (`sparse_`), or of one-hot targets, as a pipeline has it,
    that takes the logits or probabilities that `loss` takes."""
    name = f"{prefix}categorical_crossentropy"
    if not takes_logits(loss):
        return name
    return f"{{name: {name.title().replace('_', '')}, from_logits: true}}"


def metrics(train: Train, recipe: Recipe) -> Any:
    """What Keras reports, made anew: a metric belongs to one model."""
    extra = [
        _made("train.metrics", _named(m.name, tf.keras.metrics, "train.metrics"), m.args)
        for m in train.metrics
    ]
    own = [_again(metric) for metric in recipe.compiled.metrics]
    found = [list(task.keras_metrics()) for task in recipe.tasks.values()]
    if recipe.is_multi_output:
        return found
    names = {str(getattr(metric, "name", metric)) for metric in (*extra, *own)}
    return [*(m for m in found[0] if getattr(m, "name", m) not in names), *extra, *own]


def _again(metric: Any) -> Any:
    return (
        type(metric).from_config(metric.get_config()) if hasattr(metric, "get_config") else metric
    )


def callbacks(train: Train, recipe: Recipe) -> list[Any]:
    """The user's own. Raises UsageError where one is no callback."""
    found = []
    for given in train.callbacks:
        target = references.find("training", None, given.ref, recipe.base, classes=True)
        made = references.load(target)(**given.args)
        if not isinstance(made, tf.keras.callbacks.Callback):
            raise UsageError(f"{given.ref} gives {type(made).__name__}, not a Keras callback")
        found.append(made)
    return found


def class_weights(train: Train, dataset: Dataset, recipe: Recipe) -> dict[int, float] | None:
    """How much each class counts: what the pipeline says, or the inverse of how often it occurs.

    Raises UsageError where targets are no classes.
    """
    if train.class_weight is None:
        return None
    if recipe.is_multi_output or recipe.resolved["name"] != "classification":
        raise UsageError("train.class_weight is for classification with one output")
    if train.class_weight != "balanced":
        return dict(train.class_weight)
    counts = label_counts(dataset.train, len(dataset.class_names))
    present = counts > 0
    return {
        place: float(counts.sum() / (present.sum() * count)) if count else 0.0
        for place, count in enumerate(counts.tolist())
    }


def _named(name: str, room: Any, place: str) -> Any:
    """What Keras calls so. Raises UsageError with what is near."""
    found = getattr(room, name, None)
    if not callable(found):
        known = [n for n in dir(room) if not n.startswith("_") and n[0].isupper()]
        raise UsageError(f"{place}: Keras has no {name!r}{did_you_mean(name, known)}")
    return found


def _made(place: str, kind: Any, args: Mapping[str, Any]) -> Any:
    if not isinstance(kind, type):
        return kind
    try:
        return kind(**args)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: {kind.__name__}: {cause_of(error)}") from error


def check(train: Train, dataset: Dataset, recipe: Recipe) -> None:
    """Make every part once, so that a slip is told before training. Raises UsageError."""
    optimizer(train, recipe, learning_rate(train, 1))
    losses(train, recipe)
    metrics(train, recipe)
    class_weights(train, dataset, recipe) if train.class_weight != "balanced" else None
