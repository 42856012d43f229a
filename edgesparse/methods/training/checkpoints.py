"""Checkpoints, from which an interrupted training or fine-tuning resumes."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

SAVED_EVERY_SECONDS = 20.0
"""Interval of saves, since they take time, too."""
_STATE = "state.npz"


@runtime_checkable
class Stateful(Protocol):
    """A callback with state, such as masks and the number of the step."""

    def state(self) -> Mapping[str, Any]:
        """Return arrays and numbers by name."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore the result of `state`; the model's weights are restored before."""


class StageCheckpoints:
    """Folders for the checkpoints of a stage's trainings, in their order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def next(self) -> Path:
        """Return the folder of the next training."""
        self.count += 1
        return self.folder / str(self.count)

    def done(self) -> None:
        """Remove the checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Checkpointing(tf.keras.callbacks.Callback):
    """Saves the weights, the optimizer's state and the best epoch's weights at intervals, and
    restores them.

    Keras' BackupAndRestore saves neither the state of other callbacks nor the best weights.

    Args:
        folder: folder of this training. A training that was saved once is saved at its end, too,
            since a later one of its stage can be interrupted.
        best: the callback with the best weights; see callbacks.BestWeights.
        others: other callbacks, of which Stateful ones are saved.
    """

    def __init__(self, folder: Path, best: Any, others: Sequence[Any]) -> None:
        super().__init__()
        self.folder, self.best = folder, best
        self.stateful = [callback for callback in others if isinstance(callback, Stateful)]
        self.history: dict[str, list[float]] = {}
        self.first_epoch = 0
        self._saved = time.monotonic()

    def restore(self, model: tf.keras.Model) -> int:
        """Restore the checkpoint; return the next epoch, or 0 without a usable checkpoint."""
        try:
            with np.load(self.folder / _STATE, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return 0
        model.optimizer.build(model.trainable_variables)
        state = list(model.optimizer.variables)
        weights, optimizer, best = (_listed(arrays, kind) for kind in ("w", "o", "b"))
        shapes = [w.shape for w in model.get_weights()]
        if [w.shape for w in weights] != shapes or len(optimizer) != len(state):
            return 0
        model.set_weights(weights)
        for variable, value in zip(state, optimizer, strict=True):
            variable.assign(value)
        self.history = about["history"]
        self.first_epoch = int(about["epoch"])
        self.best.weights = best or None
        self.best.best, self.best.best_epoch = tuple(about["best"]), about["best_epoch"]
        self.best.computed = about["computed"]
        self.best.seen = True
        for index, callback in enumerate(self.stateful):
            entries = {
                n.partition("/")[2]: v for n, v in arrays.items() if n.startswith(f"c{index}/")
            }
            callback.restore(entries)
        return self.first_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if time.monotonic() - self._saved >= SAVED_EVERY_SECONDS:
            self._save(epoch + 1)
            self._saved = time.monotonic()

    def done(self, epochs: int) -> None:
        """Save the end of a training of so many epochs, if it was saved before."""
        if self.folder.exists():
            self._save(epochs)

    def _save(self, epoch: int) -> None:
        best = self.best
        about = {
            "epoch": epoch,
            "history": self.history,
            "best": list(best.best),
            "best_epoch": best.best_epoch,
            "computed": best.computed,
        }
        arrays = {
            **_numbered("w", self.model.get_weights()),
            **_numbered("o", [np.asarray(v) for v in self.model.optimizer.variables]),
            **_numbered("b", best.weights or []),
        }
        for index, callback in enumerate(self.stateful):
            arrays |= {f"c{index}/{k}": np.asarray(v) for k, v in callback.state().items()}
        # Another run of the same training that ends first removes the folder.
        with suppress(FileNotFoundError):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{uuid.uuid4().hex}.npz"
            np.savez(part, about=np.array(json.dumps(about)), **arrays)
            os.replace(part, self.folder / _STATE)  # noqa: PTH105 (atomic)


def _numbered(kind: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}{index}": values for index, values in enumerate(arrays)}


def _listed(arrays: dict[str, np.ndarray], kind: str) -> list[np.ndarray]:
    count = sum(name[0] == kind and name[1:].isdigit() for name in arrays)
    return [arrays[f"{kind}{index}"] for index in range(count)]
