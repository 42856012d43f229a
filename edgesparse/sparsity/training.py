"""Training and fine-tuning: Keras fit with seeds, progress and the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Quantize, Train
from edgesparse.spec.sparsify import FineTune
from edgesparse.tasks import classification

Progress = Callable[[float, str], None]
"""Told the share done, 0 to 1, and what is being done."""
History = dict[str, list[float]]


def make_repeatable(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and choose operators that give equal sums each time."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def fine_tune(train: Train, spec: FineTune | Quantize, share: float) -> Train:
    """The training's settings with the epochs and the learning rate of a later step; `share` is the
    default of the latter, relative to the training's."""
    rate = spec.learning_rate or train.learning_rate * share
    return train.model_copy(
        update={"epochs": spec.epochs, "learning_rate": rate, "early_stopping": None}
    )


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    return math.ceil(dataset.train.count / batch_size)


def check_fit(model: tf.keras.Model, dataset: Dataset) -> None:
    """Raise UsageError where the model's input or output does not suit the dataset."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "one of each is supported"
        )
    wanted, found = tuple(model.inputs[0].shape[1:]), dataset.input_shape
    if len(wanted) != len(found) or any(
        w not in (None, f) for w, f in zip(wanted, found, strict=True)
    ):
        raise UsageError(
            f"the model takes {list(wanted)} but the data gives {list(found)}; "
            "set the input_shape of one of them"
        )
    classification.check_outputs(model, dataset)


def compile_for(model: tf.keras.Model, train: Train, total_steps: int) -> None:
    """Adam on the task's loss with the learning rate schedule of `train`."""
    rate: Any = train.learning_rate
    if train.schedule == "cosine":
        rate = tf.keras.optimizers.schedules.CosineDecay(rate, max(1, total_steps))
    model.compile(
        optimizer=tf.keras.optimizers.Adam(rate),
        loss=classification.loss(train),
        metrics=classification.metrics(),
    )


def fit(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    progress: Progress,
    *,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    best_from_epoch: int = 0,
) -> History:
    """Train in place and leave the best weights in the model.

    Best is the epoch with the highest validation accuracy, the lower loss deciding between equals.

    Args:
        best_from_epoch: earlier epochs are never the best; for pruning, whose early epochs have
            not reached their sparsity yet.

    Returns:
        A value per epoch of loss, accuracy, val_loss and val_accuracy.

    Raises:
        EdgesparseError: the loss is no longer a number.
    """
    if train.epochs == 0:
        return {}
    # Each fit is seeded anew: what was trained before in this process makes no difference.
    make_repeatable(train.seed)
    steps = steps_per_epoch(dataset, train.batch_size)
    compile_for(model, train, steps * train.epochs)
    batches = (
        dataset.train.samples.shuffle(min(dataset.train.count, 10_000), seed=train.seed)
        .batch(train.batch_size)
        .prefetch(2)
    )
    # Decoded once: it is asked every epoch.
    validation = dataset.validation.samples.batch(train.batch_size).cache().prefetch(2)
    best = _KeepBest(best_from_epoch, train.early_stopping)
    history = model.fit(
        batches,
        epochs=train.epochs,
        validation_data=validation,
        verbose=0,
        callbacks=[*callbacks, best, _Report(progress, train.epochs, steps)],
    )
    if best.weights is None:
        raise EdgesparseError("the training diverged (loss is not a number); lower learning_rate")
    model.set_weights(best.weights)
    return {name: [float(v) for v in values] for name, values in history.history.items()}


def accuracy(model: tf.keras.Model, dataset: Dataset, batch_size: int = 64) -> float:
    """Share of test samples classified right by the Keras model."""
    right = 0
    for x, y in dataset.test.samples.batch(batch_size):
        right += classification.right(model(x, training=False).numpy(), y.numpy())
    return right / max(1, dataset.test.count)


class _KeepBest(tf.keras.callbacks.Callback):
    def __init__(self, first_epoch: int, patience: int | None) -> None:
        super().__init__()
        self.first_epoch = first_epoch
        self.patience = patience
        self.weights: list[np.ndarray] | None = None
        self.best = (-1.0, -math.inf)
        self.best_epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        # Accuracy takes few values on little data; the loss decides between equals.
        score = (logs["val_accuracy"], -logs["val_loss"])
        if not math.isfinite(logs["loss"]) or not math.isfinite(score[1]):
            if not math.isfinite(logs["loss"]):
                self.model.stop_training = True
            return
        if epoch < self.first_epoch:
            return
        if self.weights is None or score > self.best:
            self.best, self.best_epoch = score, epoch
            self.weights = self.model.get_weights()
        elif self.patience is not None and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True


class _Report(tf.keras.callbacks.Callback):
    def __init__(self, progress: Progress, epochs: int, steps: int) -> None:
        super().__init__()
        self.progress, self.epochs, self.steps = progress, epochs, steps
        self.epoch = 0
        self.told = 0.0
        self.result = ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        # A terminal shows no more, and each telling crosses a process.
        if now - self.told > 0.2:
            self.told = now
            self._tell((self.epoch + (batch + 1) / self.steps) / self.epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.result = f", validation accuracy {(logs or {}).get('val_accuracy', math.nan):.3f}"
        self._tell((epoch + 1) / self.epochs)

    def _tell(self, share: float) -> None:
        self.progress(share, f"epoch {self.epoch + 1}/{self.epochs}{self.result}")
