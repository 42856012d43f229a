"""Examination of a model with its data: inputs, outputs, task and scale.

    python -m edgesparse.commands.drafts.examine REQUEST.json    one line of JSON

Runs in a child process: it executes the user's model.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesparse.spec.errors import EdgesparseError, UsageError, cause_of
from edgesparse.spec.pipeline import ModelSource, Source
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module
from edgesparse.spec.safe.text import clean_all

Array = NDArray[Any]
SAMPLES = 200
TIMEOUT_SECONDS = 900
BELOW_CHANCE = 2.0
"""A model that is less than this times as accurate as chance has other labels or another scale."""


@dataclass(frozen=True)
class Request:
    """A model and the ways to read its data, the most common one first.

    `sources` are data sources of a pipeline, with absolute paths. With `sized`, they take the
    model's `input_shape`.
    """

    model: dict[str, Any]
    sources: list[dict[str, Any]]
    sized: bool = False


@dataclass(frozen=True)
class Examined:
    """The source with which the model is best, and what is known by it.

    `scores` are shares of right answers, or R2 for other targets, one for each source.
    """

    source: dict[str, Any]
    inputs: list[tuple[str, list[int | None]]]
    outputs: list[tuple[str, list[int | None]]]
    classes: list[str]
    target: str
    scores: list[float]
    scaled_by: str | None
    notes: list[str]

    @property
    def is_classification(self) -> bool:
        return self.target == "label"

    @property
    def is_at_chance(self) -> bool:
        """True where labels or scale are probably others than assumed."""
        score = max(self.scores)
        if not self.is_classification:
            return score <= 0
        return score < min(0.9, BELOW_CHANCE / max(2, len(self.classes)))


def examine_in_child(request: Request, folder: Path) -> Examined:
    """Call `examine` in a child process. Raises UsageError, EdgesparseError."""
    path = folder / "request.json"
    path.write_text(json.dumps(asdict(request)))
    module = "edgesparse.commands.drafts.examine"
    reply = run_json_module(module, [path], str(request.model["ref"]), TIMEOUT_SECONDS)
    return Examined(**clean_all(reply))


def examine(request: Request) -> dict[str, Any]:
    """Load a model and read its data in each way.

    Raises:
        UsageError: the model or the data cannot be read, or do not fit each other.
    """
    from edgesparse import models
    from edgesparse.methods.network.input_layers import pixels_scaled_by

    network, notes = models.build_with_notes(ModelSource(**request.model), Path("/"))
    shapes = [[None if s is None else int(s) for s in t.shape[1:]] for t in network.inputs]
    sources = request.sources
    scaled_by = None
    if request.sized:
        if len(shapes) != 1 or len(shapes[0]) != 3 or None in shapes[0]:
            raise UsageError(f"the model takes {shapes}, but images need [height, width, channels]")
        sources = [_with(source, input_shape=shapes[0]) for source in sources]
        scaled_by = pixels_scaled_by(network)
        if scaled_by is not None:  # The pipeline keeps its pixels as they are.
            sources = [_with(sources[0], scale=1.0)]
    scored = [(*_score(network, source), source) for source in sources]
    scores = [score for score, _, _, _ in scored]
    _, target, classes, best = scored[int(np.argmax(scores))]
    if scaled_by is not None:
        best = {**best, "args": {k: v for k, v in best["args"].items() if k != "scale"}}
    examined = Examined(
        best,
        list(zip(network.input_names, shapes, strict=True)),
        [
            (name, [None if s is None else int(s) for s in tensor.shape[1:]])
            for name, tensor in zip(network.output_names, network.outputs, strict=True)
        ],
        list(classes),
        target,
        scores,
        scaled_by,
        list(notes),
    )
    return asdict(examined)


def _with(source: Mapping[str, Any], **args: Any) -> dict[str, Any]:
    return {**source, "args": {**args, **source.get("args", {})}}


def _score(network: Any, source: Mapping[str, Any]) -> tuple[float, str, tuple[str, ...]]:
    """Return how well the model answers samples, what the target is, and its classes."""
    from edgesparse import data

    dataset = data.load(Source(**source), Path("/"))
    x, y = data.arrays(dataset.test, SAMPLES)
    values = list(x.values())
    taken = [list(tensor.shape[1:]) for tensor in network.inputs]
    shapes = [list(array.shape[1:]) for array in values]
    if not _fit(taken, shapes):
        raise UsageError(f"the model takes {taken}, but the data has {shapes}")
    try:
        outputs = network.predict(values[0] if len(values) == 1 else x, batch_size=32, verbose=0)
    except Exception as error:
        raise UsageError(f"the model cannot answer the data: {cause_of(error)}") from error
    first = outputs[0] if isinstance(outputs, list) else outputs
    if isinstance(first, dict):
        first = next(iter(first.values()))
    first, target = np.asarray(first), next(iter(y.values()))
    classes = dataset.class_names
    if np.issubdtype(target.dtype, np.integer) and target.ndim == 1:
        return _accuracy(first, target, len(classes)), "label", classes
    if first.shape == target.shape and target.ndim == 2 and _one_hot(target):
        right = first.argmax(axis=-1) == target.argmax(axis=-1)
        return float(right.mean()), "label", tuple(map(str, range(target.shape[1])))
    if first.size != target.size:
        raise UsageError(
            f"the model outputs {list(first.shape[1:])}, but the targets have "
            f"{list(target.shape[1:])}"
        )
    return _r2(first.reshape(target.shape), target), "numbers", classes


def _fit(taken: list[list[int | None]], shapes: list[list[int]]) -> bool:
    return len(taken) == len(shapes) and all(
        len(a) == len(b) and all(s is None or s == t for s, t in zip(a, b, strict=True))
        for a, b in zip(taken, shapes, strict=True)
    )


def _accuracy(outputs: Array, labels: Array, classes: int) -> float:
    width = outputs.shape[-1]
    if outputs.ndim != 2 or (width != classes and not (width == 1 and classes == 2)):
        raise UsageError(
            f"the model outputs {list(outputs.shape[1:])}, but the data has {classes} classes"
        )
    if width > 1:
        return float((outputs.argmax(axis=-1) == labels).mean())
    # A probability, or a logit where some are outside of 0 to 1.
    threshold = 0.5 if outputs.min() >= 0 and outputs.max() <= 1 else 0.0
    return float(((outputs[:, 0] > threshold) == labels).mean())


def _one_hot(target: Array) -> bool:
    return bool(np.isin(target, (0, 1)).all() and (target.sum(axis=1) == 1).all())


def _r2(outputs: Array, targets: Array) -> float:
    """1 - the error's share of the variance; -1 where it is not finite or lower."""
    spread = float(((targets - targets.mean(axis=0)) ** 2).sum()) or 1.0
    value = 1 - float(((outputs - targets) ** 2).sum()) / spread
    return max(-1.0, value) if math.isfinite(value) else -1.0


def _reply() -> dict[str, Any]:
    try:
        return examine(Request(**json.loads(Path(sys.argv[1]).read_text())))
    except EdgesparseError:
        raise
    except Exception as error:  # The user's model is code of others.
        raise UsageError(cause_of(error)) from error


if __name__ == "__main__":
    print_json_reply(_reply)
