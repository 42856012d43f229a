"""A training that was interrupted goes on where it was, a fine-tuning too."""

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
"""Not after each epoch: saving takes time, too."""
_STATE = "state.npz"


@runtime_checkable
class Remembering(Protocol):
    """A callback with a state of its own: masks that it holds, how far it is."""

    def state(self) -> Mapping[str, Any]:
        """Arrays and numbers by name."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` gave; the model's weights are back by then."""


class Interrupted:
    """Where the trainings of one stage are kept while they last, in their order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def next(self) -> Path:
        """Of the training that begins now."""
        self.count += 1
        return self.folder / str(self.count)

    def done(self) -> None:
        """Nothing is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Resumed(tf.keras.callbacks.Callback):
    """Saves the weights, the optimizer's state and the best epoch's weights now and then, and puts
    them back.

    Args:
        folder: of this training alone. A training that was saved once is saved at its end, too: a
            later one of its stage may be interrupted.
        best: the callback that keeps the best weights; see watching.
        others: callbacks, among them those that remember.
    """

    def __init__(self, folder: Path, best: Any, others: Sequence[Any]) -> None:
        super().__init__()
        self.folder, self.best = folder, best
        self.remembering = [one for one in others if isinstance(one, Remembering)]
        self.history: dict[str, list[float]] = {}
        self.first_epoch = 0
        self._saved = time.monotonic()

    def restore(self, model: tf.keras.Model) -> int:
        """Put back what is there; the epoch to go on with, 0 where there is nothing."""
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
        for place, one in enumerate(self.remembering):
            own = {n.partition("/")[2]: v for n, v in arrays.items() if n.startswith(f"c{place}/")}
            one.restore(own)
        return self.first_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if time.monotonic() - self._saved >= SAVED_EVERY_SECONDS:
            self._save(epoch + 1)
            self._saved = time.monotonic()

    def done(self, epochs: int) -> None:
        """The training of so many epochs ended."""
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
        for place, one in enumerate(self.remembering):
            arrays |= {f"c{place}/{k}": np.asarray(v) for k, v in one.state().items()}
        # Another run of the same training, which ends first, takes the folder away.
        with suppress(FileNotFoundError):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{uuid.uuid4().hex}.npz"
            np.savez(part, about=np.array(json.dumps(about)), **arrays)
            os.replace(part, self.folder / _STATE)  # noqa: PTH105 (what is meant)


def _numbered(kind: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}{place}": values for place, values in enumerate(arrays)}


def _listed(arrays: dict[str, np.ndarray], kind: str) -> list[np.ndarray]:
    count = sum(name[0] == kind and name[1:].isdigit() for name in arrays)
    return [arrays[f"{kind}{place}"] for place in range(count)]
