"""What a trained model answers, in place of labels that nobody has.

    python -m edgesparse.models.files.answers MODEL SAMPLES.npz OUT.npz    one line of JSON

A program of its own: the process that reaches devices needs no TensorFlow.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.programs import asked

BATCH = 64
TIMEOUT_SECONDS = 3600


def answers(model: Path, samples: Path, target: Path) -> None:
    """The same as `write_answers` in a process of its own. Raises UsageError, EdgesparseError."""
    words = (model, samples, target)
    asked("edgesparse.models.files.answers", words, str(model), TIMEOUT_SECONDS)


def write_answers(model: Path, samples: Path, target: Path) -> None:
    """Write the samples x [n, ...] of a .npz with the model's own answers to another one, as the
    data format `npz` takes it: classes where the model ends in a softmax, else its outputs.

    Raises:
        UsageError: the model cannot be read, or takes other samples.
    """
    from edgesparse.models.files.reading import read

    network, _ = read(model)
    with np.load(samples, allow_pickle=False) as stored:
        x = stored["x"]
    try:
        parts = [
            np.asarray(network(x[start : start + BATCH], training=False))
            for start in range(0, len(x), BATCH)
        ]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{model}: does not take these samples: {error}") from error
    y = np.concatenate(parts)
    last = getattr(network.layers[-1], "activation", None)
    if y.ndim == 2 and y.shape[1] > 1 and getattr(last, "__name__", "") == "softmax":
        y = y.argmax(axis=1)
    np.savez(target, x=x, y=y)


def main(model: str, samples: str, target: str) -> None:
    wrong = ""
    try:
        write_answers(Path(model), Path(samples), Path(target))
    except (EdgesparseError, OSError) as error:
        wrong = str(error)
    sys.stdout.write("\n" + json.dumps({"wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
