"""What a trained model answers, in place of labels that nobody has.

    python -m edgesparse.models.files.reference_outputs MODEL SAMPLES OUT.npz    one line of JSON

A program of its own: the process that reaches devices needs no TensorFlow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError, summary_of
from edgesparse.spec.safe.programs import print_json_reply, run_json_module
from edgesparse.spec.safe.text import clean

BATCH = 64
TIMEOUT_SECONDS = 3600


def answers(model: Path, samples: Path, target: Path) -> dict[str, str]:
    """The same as `write_answers` in a process of its own. Raises UsageError, EdgesparseError."""
    words = (model, samples, target)
    found = run_json_module(
        "edgesparse.models.files.reference_outputs", words, str(model), TIMEOUT_SECONDS
    )
    return {clean(str(name)): clean(str(task)) for name, task in found["tasks"].items()}


def write_answers(model: Path, samples: Path, target: Path) -> dict[str, str]:
    """Write samples with the model's own answers to a .npz, as the data format `npz` takes it: a 1
    for the class where an output ends in a softmax, else the outputs.

    Args:
        samples: a .npy of samples [n, ...]; or a .npz with x, or with arrays by the inputs' names.

    Returns:
        The task of each output, by its name.

    Raises:
        UsageError: the model cannot be read, or takes other samples.
    """
    from edgesparse.models.files.reading import read

    network, _ = read(model)
    x = _by_input(model, network, samples)
    try:
        outputs = _answered(network, list(x.values()))
    except Exception as error:
        raise UsageError(f"{model}: does not take these samples: {summary_of(error)}") from error
    tasks = dict.fromkeys(network.output_names, "regression")
    for place, (name, tensor) in enumerate(zip(tasks, network.outputs, strict=True)):
        y = outputs[place]
        last = getattr(tensor.node.layer, "activation", None)
        if y.ndim == 2 and y.shape[1] > 1 and getattr(last, "__name__", "") == "softmax":
            # Not numbers of classes: not every class has samples.
            outputs[place] = np.eye(y.shape[1], dtype=np.float32)[y.argmax(axis=1)]
            tasks[name] = "classification"
    np.savez(target, **_keys("x", x), **_keys("y", dict(zip(tasks, outputs, strict=True))))
    return tasks


def _by_input(model: Path, network: Any, samples: Path) -> dict[str, np.ndarray]:
    """The samples in the order of the model's inputs."""
    stored = np.load(samples, allow_pickle=False)
    arrays = {"x": stored} if isinstance(stored, np.ndarray) else dict(stored)
    names = list(network.input_names)
    found = {name.removeprefix("x."): values for name, values in arrays.items()}
    if len(names) == len(found) == 1:
        return dict(zip(names, found.values(), strict=True))
    if set(names) != set(found) or len({len(values) for values in found.values()}) != 1:
        shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in arrays.items())
        raise UsageError(
            f"{samples.name} has {shapes or 'no arrays'}; the model takes {', '.join(names)}: give "
            "an array with as many samples for each"
        )
    return {name: found[name] for name in names}


def _answered(network: Any, x: list[np.ndarray]) -> list[np.ndarray]:
    import tensorflow as tf

    parts = []
    for start in range(0, len(x[0]), BATCH):
        batch = [values[start : start + BATCH] for values in x]
        found = network(batch[0] if len(batch) == 1 else batch, training=False)
        parts.append([np.asarray(output) for output in tf.nest.flatten(found)])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _keys(kind: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if len(arrays) == 1:
        return {kind: next(iter(arrays.values()))}
    return {f"{kind}.{name}": values for name, values in arrays.items()}


if __name__ == "__main__":
    print_json_reply(lambda: {"tasks": write_answers(*map(Path, sys.argv[1:]))})
