"""Keras callbacks: weights of the best epoch, and progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.training.recipe import Recipe, inference, predict_split

Progress = Callable[[float, str], None]
"""Called with the share done, 0 to 1, and a description of the current work."""

_KERAS_METRICS = {
    "accuracy": "val_accuracy",
    "mae": "val_mae",
    "pixel-accuracy": "val_pixel_accuracy",
}
"""Keras' names of validation metrics, by ours."""


class BestWeights(tf.keras.callbacks.Callback):
    """Stores the weights of the best epoch; stops the training after `patience` without a better
    one. Unlike keras' EarlyStopping it compares metric and loss, and ignores early epochs."""

    def __init__(
        self, first_epoch: int, patience: int | None, recipe: Recipe, dataset: Dataset
    ) -> None:
        super().__init__()
        self.first_epoch = first_epoch
        self.patience = patience
        self.recipe = recipe
        self.dataset = dataset
        self.name = recipe.metric_name
        self.reset()

    def reset(self) -> None:
        self.weights: list[np.ndarray] | None = None
        self.best = (-math.inf, -math.inf)
        self.best_epoch = 0
        self.seen = False
        self.stopped: int | None = None
        self.last = math.nan
        self.computed: dict[str, list[float]] = {}
        self._ask: Callable[[Any], Any] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs, self.seen = logs or {}, True
        # A user's loop need not report them.
        loss, val_loss = logs.get("loss", 0.0), logs.get("val_loss", 0.0)
        if not math.isfinite(loss):
            self.model.stop_training = True
            return
        self.last = self._value(logs)
        sign = 1 if self.recipe.metric.direction == "maximize" else -1
        # On little data a metric has few distinct values; the loss decides between equals.
        score = (sign * self.last, -val_loss)
        if not math.isfinite(score[0]) or not math.isfinite(score[1]) or epoch < self.first_epoch:
            return
        if self.weights is None or score > self.best:
            self.best, self.best_epoch = score, epoch
            self.weights = self.model.get_weights()
        elif self.patience is not None and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True
            self.stopped = epoch + 1

    def _value(self, logs: Mapping[str, float]) -> float:
        watched = _KERAS_METRICS.get(self.recipe.metric.name, "")
        if watched in logs and not self.recipe.is_multi_output and not self.recipe.compiled.metrics:
            return float(logs[watched])
        if self._ask is None:
            self._ask = inference(self.model)
        outputs, targets = predict_split(self._ask, self.dataset.validation, self.recipe)
        output = self.recipe.primary_output
        value = self.recipe.metric.compute(outputs[output], targets[output])
        self.computed.setdefault(f"val_{self.name}", []).append(value)
        return value


class ProgressReport(tf.keras.callbacks.Callback):
    def __init__(self, progress: Progress, epochs: int, steps: int, best: BestWeights) -> None:
        super().__init__()
        self.progress, self.epochs, self.steps, self.best = progress, epochs, steps, best
        self.epoch = 0
        self.told = 0.0
        self.result = ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        # At most five reports per second: each crosses a process.
        if now - self.told > 0.2:
            self.told = now
            self._tell((self.epoch + (batch + 1) / self.steps) / self.epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        name = self.best.name
        trained_value = logs.get(_KERAS_METRICS.get(name, "").removeprefix("val_"))
        trained = (
            f"{name} {trained_value:.3f}, validation"
            if trained_value is not None
            else f"validation {name}"
        )
        self.result = f", loss {logs.get('loss', math.nan):.3g}, {trained} {self.best.last:.3f}"
        self._tell((epoch + 1) / self.epochs)

    def _tell(self, share: float) -> None:
        self.progress(min(1.0, share), f"epoch {self.epoch + 1}/{self.epochs}{self.result}")
