"""Samples for changes of a ready file, and its outputs for those on which it is judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import open_model
from edgesparse.tflite.format.signature import dequantize, read_signature
from edgesparse.tflite.operator_outputs import Arrays, open_interpreter, read_samples, run
from edgesparse.tflite.post_training.judgement import OutputLoss, judge

MOST_USED = 200
"""More change a method's result by less than the samples differ."""
MIN_SAMPLES = 10
_SEED = 0


def split_samples(path: Path, content: bytes) -> tuple[Arrays, Arrays]:
    """Read samples for a file, in an order shuffled once: those that a method uses, at most
    MOST_USED, and all others, on which its result is judged.

    Raises:
        UsageError: the samples do not fit the file's inputs, or are fewer than MIN_SAMPLES.
    """
    samples = read_samples(path, content)
    count = min(len(values) for values in samples.values())
    if count < MIN_SAMPLES:
        raise UsageError(f"{path} has {count} samples; at least {MIN_SAMPLES} are required")
    order = np.random.default_rng(_SEED).permutation(count)
    used = min(MOST_USED, count - max(1, count // 5))
    parts = np.sort(order[:used]), np.sort(order[used:])
    first, second = ({name: v[rows] for name, v in samples.items()} for rows in parts)
    return first, second


def sample_shapes(content: bytes, samples: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the shapes, with a batch of one, that samples imply for a file's dynamic inputs.

    Raises:
        UsageError: a fixed size differs.
    """
    shapes = {}
    for spec in read_signature(content).inputs:
        if not spec.is_dynamic:
            continue
        sizes = samples[spec.name].shape[1:]
        shape = sizes if len(sizes) == len(spec.shape) else (1, *sizes)
        pairs = list(zip(spec.shape, shape, strict=False))
        if len(shape) != len(spec.shape) or any(size > 0 and size != n for size, n in pairs):
            expected = "x".join("?" if size < 1 else str(size) for size in spec.shape[1:])
            raise UsageError(f"a sample of {spec.name} has shape {sizes}, expected {expected}")
        shapes[spec.name] = tuple(map(int, shape))
    return shapes


def with_sample_shapes(content: bytes, samples: Arrays) -> bytes:
    """Give a file's dynamic inputs the samples' shapes; they can still be resized."""
    shapes = sample_shapes(content, samples)
    if not shapes:
        return content
    model = open_model(content, "model.tflite")
    for spec in read_signature(content).inputs:
        if spec.name in shapes:
            model.subgraphs[0].tensors[spec.index].shape = list(shapes[spec.name])
    return serialize(model, aligned=True)


def outputs_of(content: bytes, samples: Arrays) -> list[np.ndarray]:
    """Return the outputs [n, ...] of a file, in their order, as real numbers."""
    interpreter = open_interpreter(content)
    details = {d["index"]: d for d in interpreter.get_output_details()}
    ends = [details[spec.index] for spec in read_signature(content).outputs]
    count = min(len(values) for values in samples.values())
    rows = [
        [dequantize(interpreter.get_tensor(end["index"]), end) for end in ends]
        for _ in run(interpreter, content, samples, count)
    ]
    stacked = (np.stack(values) for values in zip(*rows, strict=True))
    # A batch of one is no axis of the answer.
    return [v[:, 0] if v.ndim > 2 and v.shape[1] == 1 else v for v in stacked]


def judge_file(before: bytes, after: bytes, samples: Arrays) -> list[OutputLoss]:
    """Judge the outputs of a changed file against the original's."""
    # Several outputs can have one name, or none.
    outputs = [spec.name or "output" for spec in read_signature(before).outputs]
    times = Counter(outputs)
    names = [name if times[name] == 1 else f"{name} {i}" for i, name in enumerate(outputs)]
    expected, actual = (outputs_of(content, samples) for content in (before, after))
    return judge(dict(zip(names, expected, strict=True)), dict(zip(names, actual, strict=True)))
