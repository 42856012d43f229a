"""Prunes a ready .tflite file without training data: weights are removed in the order of the error
that this causes, and the others are refitted to the file's own outputs on samples.

    python -m edgesparse.tflite.post_training.pruning MODEL SAMPLES SPARSITY PATTERN OUT [ERRORS]

A program of its own, since a runtime can take its process down with it. The method is that of
methods/network/least_squares.py; layers are pruned in groups, each on the outputs of those pruned
before it.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgesparse.methods.network.least_squares import (
    MOST_BYTES,
    LayerStatistics,
    TiledStatistics,
    allocate_sparsity,
    empty_statistics,
    needed_bytes,
    prune_weights,
    reconstruction_errors,
    too_large,
)
from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.files import replace_bytes
from edgesparse.spec.safe.isolated_python import print_json_reply, print_progress, run_json_module
from edgesparse.spec.safe.text import clean
from edgesparse.spec.step import Pattern, block_shape
from edgesparse.tflite.format.encode import add_buffer, decode, serialize
from edgesparse.tflite.format.flatbuffer import (
    Constant,
    constants,
    indices,
    open_model,
    operator_name,
    set_values,
)
from edgesparse.tflite.im2col import patches
from edgesparse.tflite.operator_outputs import Arrays, open_interpreter, run
from edgesparse.tflite.post_training.calibration_samples import (
    MOST_USED,
    judge_file,
    split_samples,
    with_sample_shapes,
)
from edgesparse.tflite.post_training.judgement import OutputLoss, as_json, from_json

ROWS = 20_000
"""Positions of all samples together that enter a layer's moments: several for each input."""
GROUPS = 6
"""Passes over the samples, in each of which a share of the layers is pruned."""
OPERATORS = ("FULLY_CONNECTED", "CONV_2D")
MIN_SIZE = 512
"""Smaller weights stay dense."""
IMAGE_CHANNELS = 4
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Reconstruction:
    """The result of pruning a file."""

    layers: dict[str, float]
    """The share of zeros in each weight that was pruned, by layer."""
    left: int
    """The number of weights that stay dense: of other operators, or few."""
    losses: list[OutputLoss]
    """What each output loses against the file's own, on samples that were not used."""


def reconstruct(
    model: Path,
    samples: Path,
    sparsity: float,
    pattern: Pattern,
    target: Path,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[float], None] = lambda _: None,
    errors: Path | None = None,
) -> Reconstruction:
    """Write `model` to `target` with a share of zeros over all of its weights.

    Args:
        sparsity: the target share, in (0, 1).
        pattern: blocks in fully connected layers whose inputs divide into them, else single
            weights.
        samples: a .npy with [n, ...] for one input; a .npz with such arrays by the inputs' names,
            or x.
        progress: called with the share that is done.
        errors: a file that keeps the errors of each layer for other sparsities of the same model,
            samples and pattern; written where it does not exist.

    Raises:
        UsageError: the samples do not match the model's inputs, or it has no float weights.
        EdgesparseError: the file does not run here.
    """
    words = (model, samples, sparsity, pattern, target, *([errors] if errors else []))
    module = "edgesparse.tflite.post_training.pruning"
    reply = run_json_module(module, words, str(model), timeout_seconds, progress=progress)
    layers = {clean(str(name)): float(share) for name, share in reply["layers"].items()}
    return Reconstruction(layers, int(reply["left"]), from_json(reply["losses"]))


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

    def rows(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The operator's input values [n, d], a row for each position of its outputs."""
        if self.constant.op == "FULLY_CONNECTED":
            return inputs.reshape(-1, self.constant.values.shape[1])
        return patches(inputs, self.constant.values.shape, self.operator.builtinOptions)


def _layers(model: Any, content: bytes, pattern: Pattern) -> tuple[list[_Layer], int]:
    """List the layers that can be pruned, in the file's order; and count all other weights."""
    every = [c for c in constants(model, content) if c.graph == 0]
    shared = Counter(c.buffer for c in every)
    biases = {c.operator: c for c in every if c.slot == 2 and c.values.dtype.kind == "f"}
    readers = Counter(i for o in model.subgraphs[0].operators for i in indices(o.inputs))
    layers, left = [], 0
    for constant in every:
        if not constant.is_weight:
            continue
        operator = model.subgraphs[0].operators[constant.operator]
        source = indices(operator.inputs)[0]
        values = constant.values
        is_prunable = (
            constant.op in OPERATORS
            and constant.slot == 1
            and values.dtype in (np.float32, np.float16)
            and shared[constant.buffer] == 1
            and values.size >= MIN_SIZE
            and (constant.op == "FULLY_CONNECTED" or values.shape[3] > IMAGE_CHANNELS)
            and not too_large(values.size // len(values), len(values))
        )
        if not is_prunable:
            left += values.size
            continue
        fits = constant.op == "FULLY_CONNECTED" and values.shape[1] % block_shape(pattern)[1] == 0
        layer_pattern: Pattern = pattern if fits else "unstructured"
        shared_bias = readers[indices(operator.inputs)[-1]] > 1  # f16, behind DEQUANTIZE.
        bias = None if shared_bias else biases.get(constant.operator)
        layers.append(_Layer(constant, bias, source, operator, layer_pattern))
    return layers, left


def _copy_shared_biases(model: Any) -> None:
    """Give each operator a bias that no other reads: the converter stores equal ones once, for
    example zeros for layers without bias."""
    graph = model.subgraphs[0]
    seen: set[int] = set()
    for operator in graph.operators:
        inputs = indices(operator.inputs)
        if operator_name(model, operator) not in OPERATORS or len(inputs) < 3 or inputs[2] < 0:
            continue
        shared = graph.tensors[inputs[2]]
        data = model.buffers[shared.buffer].data
        if data is not None and len(data) and shared.buffer in seen:
            graph.tensors.append(copy.copy(shared))
            graph.tensors[-1].buffer = add_buffer(model, data)
            operator.inputs = [*inputs[:2], len(graph.tensors) - 1, *inputs[3:]]
        seen.add(shared.buffer)


def _moments(
    layers: Sequence[_Layer],
    pruned_file: bytes,
    original: bytes,
    samples: Arrays,
    progress: Callable[[float], None],
) -> Iterator[tuple[_Layer, LayerStatistics | TiledStatistics]]:
    """Collect each layer's moments: its inputs in `pruned_file`, its outputs in `original`.

    `progress` is called with the share of this and of the work on what is yielded, half each.
    """
    files = [original] if pruned_file is original else [pruned_file, original]
    interpreters = [open_interpreter(content) for content in files]
    count = min(MOST_USED, min(len(values) for values in samples.values()))
    matrices = [layer.matrix for layer in layers]
    moments = [empty_statistics(matrix) for matrix in matrices]
    runs = [
        run(interpreter, content, samples, MOST_USED)
        for interpreter, content in zip(interpreters, files, strict=True)
    ]
    for number, *_ in zip(*runs, strict=True):
        random = np.random.default_rng(number)
        for i, layer in enumerate(layers):
            rows = [layer.rows(each.get_tensor(layer.source)) for each in interpreters]
            limit = max(1, max(ROWS, 4 * len(matrices[i])) // count)
            if len(rows[0]) > limit:  # The same positions in both.
                chosen = np.sort(random.choice(len(rows[0]), limit, replace=False))
                rows = [values[chosen] for values in rows]
            rows = [values.astype(np.float64) for values in rows]
            moments[i].add(rows[0], rows[-1] @ matrices[i])
        progress((number + 1) / count / 2)
    for done, pair in enumerate(zip(layers, moments, strict=True)):
        progress((1 + done / len(layers)) / 2)
        yield pair


def _group_by_memory(layers: Sequence[_Layer]) -> list[list[_Layer]]:
    """Split layers, in their order, into the fewest groups whose moments fit in memory together."""
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


def _prune_file(
    model: Path, samples_file: Path, sparsity: float, pattern: Pattern, target: Path,
    errors_file: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    content = decode(model.read_bytes(), model.name)
    samples, held_out = split_samples(samples_file, content)
    content = with_sample_shapes(content, samples)
    graph = open_model(content, model.name)
    _copy_shared_biases(graph)
    layers, left = _layers(graph, content, pattern)
    if not layers:
        raise UsageError("no float weights to prune; pass the float model")
    sizes = {str(i): layer.constant.values.size for i, layer in enumerate(layers)}
    # The target counts all weights: prunable layers make up for those that stay dense.
    goal = min(0.99, sparsity * (sum(sizes.values()) + left) / sum(sizes.values()))
    is_kept = errors_file is not None and errors_file.exists()
    by_memory = [] if is_kept else _group_by_memory(layers)
    passes = len(by_memory) + min(GROUPS, len(layers))
    errors: dict[str, list[float]] = {}
    for done, group in enumerate(by_memory):
        report = _in_pass(done, passes)
        for layer, moments in _moments(group, content, content, samples, report):
            centred = moments.centred() if layer.bias is not None else moments
            errors[str(len(errors))] = reconstruction_errors(layer.matrix, centred, layer.pattern)
    if errors_file is not None and is_kept:
        errors = json.loads(errors_file.read_text())
    elif errors_file is not None:
        replace_bytes(errors_file, json.dumps(errors).encode())
    shares = allocate_sparsity(errors, sizes, goal)
    pruned_file = content
    parts = np.array_split(np.arange(len(layers)), min(GROUPS, len(layers)))
    for done, indexes in enumerate(parts, len(by_memory)):
        group = [layers[i] for i in indexes]
        collected = _moments(group, pruned_file, content, samples, _in_pass(done, passes))
        for i, (layer, moments) in zip(indexes, collected, strict=True):
            _replace(graph, layer, moments, shares[str(i)])
        pruned_file = serialize(graph, aligned=True)
    target.write_bytes(pruned_file)
    return {
        "layers": {layer.constant.label: shares[str(n)] for n, layer in enumerate(layers)},
        "left": left,
        "losses": as_json(judge_file(content, pruned_file, held_out)),
    }


def _in_pass(number: int, passes: int) -> Callable[[float], None]:
    """Report the progress of a pass, each percent of all passes once."""
    shown = -1

    def report(share: float) -> None:
        nonlocal shown
        percent = int(100 * (number + share) / passes)
        if percent > shown:
            shown = percent
            print_progress(percent / 100)

    return report


def _replace(
    model: Any, layer: _Layer, moments: LayerStatistics | TiledStatistics, sparsity: float
) -> None:
    """Put a layer's pruned weights, and refitted bias, into the model."""
    centred = moments.centred() if layer.bias is not None else moments
    weights = prune_weights(layer.matrix, centred, sparsity, layer.pattern)
    values = layer.constant.values
    set_values(model, layer.constant, weights.T.reshape(values.shape).astype(values.dtype))
    if layer.bias is not None:
        # What the original outputs, which are without bias, lost on average.
        shift = moments.mean_output - moments.mean_input @ weights
        bias = layer.bias.values
        set_values(model, layer.bias, (bias + shift).astype(bias.dtype))


def main(
    model: str, samples: str, sparsity: str, pattern: str, target: str, errors: str = ""
) -> None:
    files, kept = (Path(model), Path(samples)), Path(errors) if errors else None
    print_json_reply(
        lambda: _prune_file(*files, float(sparsity), cast(Pattern, pattern), Path(target), kept),
        f"{model}: ",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
