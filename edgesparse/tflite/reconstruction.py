"""Zeros for a ready .tflite file, without its training: weights go in the order of the error that
this causes, and the others make up for them, on what the file itself makes of samples.

    python -m edgesparse.tflite.reconstruction MODEL SAMPLES SPARSITY PATTERN OUT

A program of its own, since a runtime can take its process down with it. The method is that of
methods/network/least_squares.py; layers go in groups, each with what the groups before it give by
then.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgesparse.methods.network.least_squares import (
    MOST_BYTES,
    Seen,
    Tiles,
    allocated,
    losses,
    needed_bytes,
    pruned,
    too_large,
    watching,
)
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.programs import run_json_module
from edgesparse.spec.safe.text import clean
from edgesparse.spec.sparsify import BLOCK, Pattern
from edgesparse.tflite.format.encode import decode, packed
from edgesparse.tflite.format.graph import Constant, constants, indices, open_model, put
from edgesparse.tflite.patches import patches
from edgesparse.tflite.recording import (
    Arrays,
    hold_out,
    open_interpreter,
    output_error,
    read_samples,
    run,
)

MOST = 200
"""Samples that are looked at, at most."""
ROWS = 20_000
GROUPS = 6
MIN_SIZE = 512
"""Smaller weights stay dense."""
IMAGE_CHANNELS = 4
MIN_SAMPLES = 10
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Made:
    """What became of a file: shares of zeros in weights that were pruned, by layer."""

    layers: dict[str, float]
    left: int
    """Weights that no method knows, or that are few."""
    output_error: float
    """How far the answers are from the file's own on samples that were kept apart: the mean of the
    differences, as a share of an output's range; of the output where that is largest."""


def reconstruct(
    model: Path, samples: Path, sparsity: float, pattern: Pattern, target: Path
) -> Made:
    """Write `model` with a share of zeros over all of its weights to `target`.

    Args:
        samples: a .npy with [n, ...] for one input; a .npz with such arrays by the inputs' names,
            or x.

    Raises:
        UsageError: the samples do not fit the model, or it has no float weights.
        EdgesparseError: the file does not run here.
    """
    words = (model, samples, sparsity, pattern, target)
    found = run_json_module("edgesparse.tflite.reconstruction", words, str(model), TIMEOUT_SECONDS)
    layers = {clean(str(name)): float(share) for name, share in found["layers"].items()}
    return Made(layers, int(found["left"]), float(found["output_error"]))


@dataclass(frozen=True)
class _Layer:
    """A weight that can be pruned, with the bias of its operator."""

    constant: Constant
    bias: Constant | None
    source: int
    """The tensor of the operator's input."""
    operator: Any
    pattern: Pattern

    @property
    def matrix(self) -> np.ndarray[Any, Any]:
        """[inputs, outputs], float64."""
        values = self.constant.values
        return values.reshape(len(values), -1).T.astype(np.float64)

    def seen(self, given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What the operator's outputs are computed from, as rows of its matrix's inputs."""
        if self.constant.op == "FULLY_CONNECTED":
            return given.reshape(-1, self.constant.values.shape[1])
        return patches(given, self.constant.values.shape, self.operator.builtinOptions)


def _layers(model: Any, content: bytes, pattern: Pattern) -> tuple[list[_Layer], int]:
    """What can be pruned, in the file's order; and how many other weights there are."""
    every = [c for c in constants(model, content) if c.graph == 0]
    shared = Counter(c.buffer for c in every)
    biases = {c.operator: c for c in every if c.slot == 2 and c.values.dtype == np.float32}
    found, left = [], 0
    for constant in every:
        if not constant.is_weight:
            continue
        operator = model.subgraphs[0].operators[constant.operator]
        source = indices(operator.inputs)[0]
        values = constant.values
        known = (
            constant.op in ("FULLY_CONNECTED", "CONV_2D")
            and constant.slot == 1
            and values.dtype in (np.float32, np.float16)
            and shared[constant.buffer] == 1
            and values.size >= MIN_SIZE
            and (constant.op == "FULLY_CONNECTED" or values.shape[3] > IMAGE_CHANNELS)
            and not too_large(values.size // len(values), len(values))
        )
        if not known:
            left += values.size
            continue
        fits = constant.op == "FULLY_CONNECTED" and values.shape[1] % BLOCK.get(pattern, 1) == 0
        own: Pattern = pattern if fits or pattern == "unstructured" else "unstructured"
        found.append(_Layer(constant, biases.get(constant.operator), source, operator, own))
    return found, left


def _seen(
    layers: Sequence[_Layer], now: bytes, then: bytes, given: Arrays
) -> Iterator[tuple[_Layer, Seen | Tiles]]:
    """What is known of each layer: with what it is given in `now`, for what it gives in `then`."""
    runs = (
        [open_interpreter(now), open_interpreter(then)]
        if now is not then
        else [open_interpreter(then)]
    )
    count = min(MOST, min(len(values) for values in given.values()))
    matrices = [layer.matrix for layer in layers]
    known = [watching(matrix) for matrix in matrices]
    numbers = [
        run(one, content, given, MOST) for one, content in zip(runs, (now, then), strict=False)
    ]
    for number in zip(*numbers, strict=True):
        random = np.random.default_rng(number[0])
        for place, layer in enumerate(layers):
            x, before = (layer.seen(one.get_tensor(layer.source)) for one in (runs[0], runs[-1]))
            wanted = max(1, max(ROWS, 4 * len(matrices[place])) // count)
            if len(x) > wanted:  # The same positions in both.
                chosen = np.sort(random.choice(len(x), wanted, replace=False))
                x, before = x[chosen], before[chosen]
            known[place].add(x.astype(np.float64), before.astype(np.float64) @ matrices[place])
    yield from zip(layers, known, strict=True)


def _within_memory(layers: Sequence[_Layer]) -> list[list[_Layer]]:
    """Layers in their order, in as few groups as may be looked at together."""
    groups: list[list[_Layer]] = []
    room = 0.0
    for layer in layers:
        needed = needed_bytes(
            *layer.constant.values.reshape(len(layer.constant.values), -1).T.shape
        )
        if not groups or needed > room:
            groups.append([])
            room = MOST_BYTES
        groups[-1].append(layer)
        room -= needed
    return groups


def _carried_out(
    model: Path, samples: Path, sparsity: float, pattern: Pattern, target: Path
) -> Any:
    content = decode(model.read_bytes(), model.name)
    every = read_samples(samples, content)
    count = min(len(values) for values in every.values())
    if count < MIN_SAMPLES:
        raise UsageError(f"{samples} has {count} samples; give at least {MIN_SAMPLES}")
    given, kept = hold_out(every, count)
    read = open_model(content, model.name)
    layers, left = _layers(read, content, pattern)
    if not layers:
        raise UsageError("it has no float weights that could be pruned; give the float model")
    sizes = {str(place): layer.constant.values.size for place, layer in enumerate(layers)}
    # Asked for are zeros over all weights: what stays dense is made up for by the others.
    goal = min(0.99, sparsity * (sum(sizes.values()) + left) / sum(sizes.values()))
    errors: dict[str, list[float]] = {}
    for group in _within_memory(layers):
        for layer, seen in _seen(group, content, content, given):
            known = seen.centred() if layer.bias is not None else seen
            errors[str(len(errors))] = losses(layer.matrix, known, layer.pattern)
    shares = allocated(errors, sizes, goal)
    now = content
    for group in np.array_split(np.arange(len(layers)), min(GROUPS, len(layers))):
        own = [layers[place] for place in group]
        for place, (layer, seen) in zip(group, _seen(own, now, content, given), strict=True):
            _replace(read, layer, seen, shares[str(place)])
        now = packed(read, aligned=True)
    target.write_bytes(now)
    return {
        "layers": {layer.constant.label: shares[str(n)] for n, layer in enumerate(layers)},
        "left": left,
        "output_error": output_error(content, now, kept, MOST),
    }


def _replace(model: Any, layer: _Layer, seen: Seen | Tiles, sparsity: float) -> None:
    """Put a layer's new weights, and bias, into the model."""
    known = seen.centred() if layer.bias is not None else seen
    found = pruned(layer.matrix, known, sparsity, layer.pattern)
    values = layer.constant.values
    put(model, layer.constant, found.T.reshape(values.shape).astype(values.dtype))
    if layer.bias is not None:
        # What the wanted outputs, which are without bias, lost on average.
        shift = seen.mean_wanted - seen.mean_input @ found
        put(model, layer.bias, (layer.bias.values + shift).astype(np.float32))


def main(model: str, samples: str, sparsity: str, pattern: str, target: str) -> None:
    try:
        said = _carried_out(
            Path(model), Path(samples), float(sparsity), cast(Pattern, pattern), Path(target)
        )
    except (EdgesparseError, ValueError, RuntimeError) as error:
        said = {"wrong": f"{model}: {error}"}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
