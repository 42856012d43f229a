"""Outputs of a trained model, used as labels of samples that have none.

    python -m edgesparse.models.reference_outputs MODEL SAMPLES OUT.npz    one line of JSON

MODEL is a pipeline's `model` as JSON.

Runs in a child process: the process that reaches devices needs no TensorFlow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse import models
from edgesparse.spec.errors import UsageError, summary_of
from edgesparse.spec.pipeline import ModelSource
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module
from edgesparse.spec.safe.text import clean

BATCH = 64
_DECISION = 0.5
_SUM_TOLERANCE = 1e-3
TIMEOUT_SECONDS = 3600


def label_samples_in_child(source: ModelSource, samples: Path, target: Path) -> dict[str, str]:
    """Call `label_samples` in a child process. Raises UsageError, EdgesparseError."""
    arguments = (source.model_dump_json(), samples, target)
    result = run_json_module(
        "edgesparse.models.reference_outputs", arguments, models.label(source), TIMEOUT_SECONDS
    )
    return {clean(str(name)): clean(str(task)) for name, task in result["tasks"].items()}


def label_samples(source: ModelSource, samples: Path, target: Path) -> dict[str, str]:
    """Write samples and the model's outputs as labels to a .npz for the data format `npz`: one-hot
    classes for probabilities that sum to 1, decisions at 0.5 for outputs that end in a sigmoid,
    else the outputs.

    Args:
        source: the model, with absolute paths.
        samples: a .npy of samples [n, ...]; or a .npz with x, or with arrays by the inputs' names.

    Returns:
        The task of each output, by its name.

    Raises:
        UsageError: the model cannot be read, or the samples do not fit it.
    """
    network = models.build(source, Path("/"))
    x = _by_input(network, samples)
    try:
        outputs = _predict(network, list(x.values()))
    except Exception as error:
        raise UsageError(
            f"{models.label(source)}: the samples do not fit: {summary_of(error)}"
        ) from error
    tasks = dict.fromkeys(network.output_names, "regression")
    for index, (name, tensor) in enumerate(zip(tasks, network.outputs, strict=True)):
        y = outputs[index]
        last = getattr(getattr(tensor.node.layer, "activation", None), "__name__", "")
        if y.ndim != 2:
            continue
        decisions = (y >= _DECISION).astype(np.float32)
        if y.shape[1] > 1 and y.min() >= 0 and np.all(np.abs(y.sum(axis=1) - 1) < _SUM_TOLERANCE):
            # One-hot instead of integers: a class may have no samples.
            outputs[index] = np.eye(y.shape[1], dtype=np.float32)[y.argmax(axis=1)]
            tasks[name] = "classification"
        elif last == "sigmoid" and 0 < decisions.mean() < 1:
            outputs[index], tasks[name] = decisions, "multi-label"
    np.savez(target, **_keys("x", x), **_keys("y", dict(zip(tasks, outputs, strict=True))))
    return tasks


def _by_input(network: Any, samples: Path) -> dict[str, np.ndarray]:
    """Return the samples in the order of the model's inputs."""
    stored = np.load(samples, allow_pickle=False)
    arrays = {"x": stored} if isinstance(stored, np.ndarray) else dict(stored)
    names = list(network.input_names)
    by_name = {name.removeprefix("x."): values for name, values in arrays.items()}
    if len(names) == len(by_name) == 1:
        return dict(zip(names, by_name.values(), strict=True))
    if set(names) != set(by_name) or len({len(values) for values in by_name.values()}) != 1:
        shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in arrays.items())
        raise UsageError(
            f"{samples.name} has {shapes or 'no arrays'}, but the model needs {', '.join(names)}; "
            "save an array for each input, all with the same number of samples"
        )
    return {name: by_name[name] for name in names}


def _predict(network: Any, x: list[np.ndarray]) -> list[np.ndarray]:
    """Compute the outputs, each [n, ...], in batches."""
    import tensorflow as tf

    parts = []
    for start in range(0, len(x[0]), BATCH):
        batch = [values[start : start + BATCH] for values in x]
        outputs = network(batch[0] if len(batch) == 1 else batch, training=False)
        parts.append([np.asarray(output) for output in tf.nest.flatten(outputs)])
    return [np.concatenate(batches) for batches in zip(*parts, strict=True)]


def _keys(kind: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if len(arrays) == 1:
        return {kind: next(iter(arrays.values()))}
    return {f"{kind}.{name}": values for name, values in arrays.items()}


if __name__ == "__main__":
    model = ModelSource.model_validate_json(sys.argv[1])
    print_json_reply(lambda: {"tasks": label_samples(model, *map(Path, sys.argv[2:]))})
