"""One-shot pruning without training and labels: the remaining weights of each layer reconstruct its
outputs on calibration samples.

Layers are pruned in order; the inputs of each are those of the network pruned so far, and its
target outputs are those of the dense network. Methods and papers: network/least_squares.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse import data
from edgesparse.data import Dataset
from edgesparse.methods.activations import nodes_of
from edgesparse.methods.coverage import Sparsified, coverage, measure, require_covered
from edgesparse.methods.magnitude import misfit
from edgesparse.methods.masks import HoldMasks, Masked, squares
from edgesparse.methods.network.keep_mask import distribute
from edgesparse.methods.network.kernels import Kernel, choose
from edgesparse.methods.network.least_squares import (
    LayerStatistics,
    TiledStatistics,
    allocate_sparsity,
    empty_statistics,
    prune_weights,
    reconstruction_errors,
    statistics_bytes,
    too_large,
)
from edgesparse.methods.training.batch_norm import recalibrate
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import comparison_samples, fit, recipe_of
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import OneShot
from edgesparse.spec.step import Pattern
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY

BATCH = 50
MOST_VALUES = 2**27
"""Most input values per batch, of a layer's positions and of all recorded layers, 1 GB as float64;
else the batch is smaller."""
ROWS = 30_000
"""Least number of a layer's positions, over all samples, for its statistics; also at least four for
each input, so that moments have full rank."""
MIN_IMAGES = 128
"""Least number of samples for a layer that needs only some of its positions in each, see ROWS:
computing a large network's activations takes longer than using them."""
PASSES = 16
"""Passes over the samples in which layers are pruned. Larger networks are pruned in groups of
consecutive layers, whose inputs are those of the network with all earlier groups pruned."""
GROUP_BYTES = 2e9
"""Most memory for the statistics of a group."""
UNSUPPORTED = "one-shot supports fully connected layers and convolutions without groups"


def one_shot(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: OneShot, progress: Progress
) -> Sparsified:
    """Make `model` sparse in place; it is fine-tuned only where `spec` has epochs.

    Raises:
        UsageError: a glob matches nothing, or no layer can be reconstructed.
        EdgesparseError: less than half of the target was achieved.
    """
    chosen, left = _choose(model, spec)
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    goal = (
        0.5
        if spec.pattern == "2:4"
        else min(MAX_KERNEL_SPARSITY[spec.method], spec.sparsity * everything / total)
    )
    dense = tf.keras.models.clone_model(model)
    dense.set_weights(model.get_weights())
    require_equal("copying the model", model, dense, comparison_samples(model, dataset))
    calibration = data.representative(dataset, spec.calibration_samples)
    samples = [calibration[name] for name in recipe_of(model, dataset, train).inputs]
    shares = dict.fromkeys(chosen, goal)
    if spec.pattern != "2:4" and spec.distribution != "error":
        parts = {n: (squares(k), _fitting(k, spec.pattern)) for n, k in chosen.items()}
        shares = distribute(parts, goal, spec.distribution)
    elif spec.pattern != "2:4" and len(chosen) > 1:
        half = _part(progress, 0.0)
        shares = _allocate(chosen, model, dense, samples, goal, spec.pattern, half)
        progress = _part(progress, 0.5)
    layers: list[tuple[Kernel, Pattern, float, str]] = []
    for group in _groups(chosen, -(-len(chosen) // PASSES)):
        progress(len(layers) / len(chosen), group[0].name)
        for kernel, weights, seen in _statistics(group, model, dense, samples):
            pattern, share = _fitting(kernel, spec.pattern), shares[kernel.name]
            _reconstruct(kernel, dense.get_layer(kernel.layer), weights, seen, share, pattern)
            layers.append((kernel, pattern, share, misfit(spec.pattern, kernel)))
            progress(len(layers) / len(chosen), kernel.name)
    notes: tuple[str, ...] = (
        f"no labels and no training: {len(samples[0]):,} calibration samples",
    )
    notes += _recalibrated(model, dense, samples)
    history = {}
    if train.epochs:
        held = [Masked(kernel) for kernel in chosen.values()]
        for masked in held:
            masked.keep_zeros()
        history = fit(model, dataset, train, progress, callbacks=[HoldMasks(held)])
        for masked in held:
            masked.apply()
    measured = tuple(measure(*layer) for layer in layers)
    target = 0.5 if spec.pattern == "2:4" else spec.sparsity
    done = coverage(model, target, {name: why for name, (_, why) in left.items()})
    require_covered(done, spec.allow_partial)
    return Sparsified(model, history, measured, notes, done, keeps_layers=True)


def _choose(
    model: tf.keras.Model, spec: OneShot
) -> tuple[dict[str, Kernel], dict[str, tuple[int, str]]]:
    """Return the kernels that can be reconstructed; and size and reason of each other, by name.

    Raises:
        UsageError: a glob matches nothing, or no kernel can be reconstructed.
    """
    possible, left = choose(model, spec.exclude)
    chosen = {}
    for name, kernel in possible.items():
        width = kernel.shape[-1]
        supported = _is_supported(kernel, model)
        why = too_large(kernel.size // width, width) if supported else UNSUPPORTED
        if why:
            left[name] = (kernel.size, why)
        else:
            chosen[name] = kernel
    if not chosen:
        raise UsageError(f"no layer can be reconstructed: {why}")
    return chosen, left


def _is_supported(kernel: Kernel, model: tf.keras.Model) -> bool:
    layers = tf.keras.layers
    plain = type(kernel.owner) in (layers.Dense, layers.Conv1D, layers.Conv2D)
    return (
        plain
        and getattr(kernel.owner, "groups", 1) == 1
        and any(layer is kernel.owner for layer in model.layers)
    )


def _fitting(kernel: Kernel, pattern: Pattern) -> Pattern:
    return "unstructured" if misfit(pattern, kernel) else pattern


def _part(progress: Progress, begin: float) -> Progress:
    return lambda share, text: progress(begin + share / 2, text)


def _allocate(
    chosen: Mapping[str, Kernel],
    model: tf.keras.Model,
    dense: tf.keras.Model,
    samples: Sequence[np.ndarray],
    goal: float,
    pattern: Pattern,
    progress: Progress,
) -> dict[str, float]:
    """Return each layer's sparsity, by the errors of each when pruned alone."""
    errors: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for group in _groups(chosen, len(chosen)):
        progress(len(errors) / len(chosen), f"{group[0].name}: sensitivity")
        # Nothing is pruned yet: both networks are the dense one.
        twins = [replace(kernel, owner=dense.get_layer(kernel.layer)) for kernel in group]
        for kernel, weights, seen in _statistics(twins, dense, dense, samples):
            statistics = seen.centred() if kernel.owner.use_bias else seen
            fitting = _fitting(kernel, pattern)
            sizes[kernel.name] = kernel.size
            errors[kernel.name] = reconstruction_errors(
                weights, statistics, fitting, kernel.shape[-2]
            )
            progress(len(errors) / len(chosen), f"{kernel.name}: sensitivity")
    return allocate_sparsity(errors, sizes, goal)


def _groups(chosen: Mapping[str, Kernel], most: int) -> list[list[Kernel]]:
    """Split layers, in their order, into groups of at most `most`, whose statistics fit in
    GROUP_BYTES together; a larger one is alone."""
    groups: list[list[Kernel]] = []
    room = 0.0
    for kernel in chosen.values():
        width = kernel.shape[-1]
        needed = statistics_bytes(kernel.size // width, width)
        if not groups or needed > room or len(groups[-1]) == most:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(kernel)
        room -= needed
    return groups


def _statistics(
    group: Sequence[Kernel],
    model: tf.keras.Model,
    dense: tf.keras.Model,
    samples: Sequence[np.ndarray],
) -> Iterator[tuple[Kernel, np.ndarray, LayerStatistics | TiledStatistics]]:
    """Yield each layer of a group, its weights [inputs, outputs], and its statistics on the
    samples, which are computed for all of them together."""
    twins = [dense.get_layer(kernel.layer) for kernel in group]
    matrices = [_matrix(kernel.variable) for kernel in group]
    before = [_matrix(twin.kernel) for twin in twins]
    every = [
        empty_statistics(matrix, kernel.shape[-2])
        for matrix, kernel in zip(before, group, strict=True)
    ]
    rows = [max(ROWS, 4 * len(matrix)) for matrix in matrices]
    then = _inputs(dense, twins, samples, rows)
    if model is dense:
        for number, x in then:
            every[number].add(x, x @ before[number])
    else:
        now = _inputs(model, [kernel.owner for kernel in group], samples, rows)
        for (number, x), (_, dense_inputs) in zip(now, then, strict=True):
            every[number].add(x, dense_inputs @ before[number])
    del then
    for kernel, matrix in zip(group, matrices, strict=True):
        yield kernel, matrix, every.pop(0)


def _matrix(variable: Any) -> np.ndarray:
    """Return a kernel as [inputs, outputs], float64."""
    values: np.ndarray = variable.numpy()
    return values.reshape(-1, values.shape[-1]).astype(np.float64)


def _reconstruct(
    kernel: Kernel,
    twin: Any,
    weights: np.ndarray,
    seen: LayerStatistics | TiledStatistics,
    sparsity: float,
    pattern: Pattern,
) -> None:
    """Make a layer sparse. `twin` is the same layer of the dense network."""
    layer, shape = kernel.owner, kernel.shape
    statistics = seen.centred() if layer.use_bias else seen
    pruned = prune_weights(weights, statistics, sparsity, pattern, shape[-2])
    kernel.variable.assign(pruned.reshape(shape))
    if layer.use_bias:
        shift = seen.mean_output - seen.mean_input @ pruned
        layer.bias.assign(twin.bias + tf.cast(shift, twin.bias.dtype))


def _inputs(
    model: tf.keras.Model,
    layers: Sequence[Any],
    samples: Sequence[np.ndarray],
    rows: Sequence[int],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield inputs of layers, by number, as rows [n, inputs] of its kernel, for some positions per
    sample; `rows` for each in all."""
    # A layer can be in other graphs, too: in the model that a flat one was built from.
    nodes = [[node.keras_inputs[0] for node in nodes_of(model, layer)] for layer in layers]
    source = tf.keras.Model(model.inputs, nodes)
    counts = [
        _images(layer, len(samples[0]), least) for layer, least in zip(layers, rows, strict=True)
    ]
    recorded = sum(_values(tensor) for tensor in tf.nest.flatten(nodes))
    size = max(1, min(*map(_batch, layers), MOST_VALUES // recorded))
    for number, start in enumerate(range(0, max(counts), size)):
        batch = [values[start : min(start + size, max(counts))] for values in samples]
        tensors = source(batch[0] if len(batch) == 1 else batch, training=False)
        # Keras shortens lists of one.
        tensors = tensors if len(layers) > 1 else [tensors]
        for i, (layer, count) in enumerate(zip(layers, counts, strict=True)):
            present = min(len(batch[0]), count - start)
            if present <= 0:
                continue
            patches = [_patches(v[:present], layer).numpy() for v in tf.nest.flatten(tensors[i])]
            rows_of = [values.reshape(-1, values.shape[-1]) for values in patches]
            flat = rows_of[0] if len(rows_of) == 1 else np.concatenate(rows_of)
            quota = max(1, rows[i] * present // count)
            if len(flat) > quota:  # The same positions for both networks.
                random = np.random.default_rng(number)
                flat = flat[np.sort(random.choice(len(flat), quota, replace=False))]
            yield i, flat.astype(np.float64)


def _images(layer: Any, count: int, rows: int) -> int:
    """Return the number of samples that a layer's statistics are from: of its positions in each, at
    most a quarter is used."""
    shape = layer.get_output_at(0).shape
    first = getattr(layer, "data_format", None) == "channels_first"
    positions = int(np.prod([size or 1 for size in (shape[2:] if first else shape[1:-1])]))
    return min(count, max(MIN_IMAGES, -(-4 * rows // positions)))


def _values(tensor: Any) -> int:
    """Return the number of a tensor's values per sample."""
    return int(np.prod([size or 1 for size in tensor.shape[1:]]))


def _batch(layer: Any) -> int:
    """Return the batch size with which a layer's inputs have at most MOST_VALUES values."""
    kernel = layer.kernel.shape
    values = _values(layer.get_output_at(0)) // kernel[-1] * int(np.prod(kernel[:-1]))
    return max(1, min(BATCH, MOST_VALUES // max(1, values)))


def _patches(tensor: Any, layer: Any) -> Any:
    """Return the patches that a layer's outputs are computed from, [n, ..., inputs]."""
    if isinstance(layer, tf.keras.layers.Dense):
        return tensor
    if layer.data_format == "channels_first":
        tensor = tf.experimental.numpy.moveaxis(tensor, 1, -1)
    one_dimensional = isinstance(layer, tf.keras.layers.Conv1D)
    padding = layer.padding.upper()
    if one_dimensional:
        if padding == "CAUSAL":
            before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            tensor, padding = tf.pad(tensor, [[0, 0], [before, 0], [0, 0]]), "VALID"
        tensor = tensor[:, None]
    sizes, strides, rates = (
        [1, *((1, *v) if one_dimensional else v), 1]
        for v in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    return tf.image.extract_patches(tensor, sizes, strides, rates, padding)


def _recalibrated(
    model: tf.keras.Model, dense: tf.keras.Model, samples: Sequence[np.ndarray]
) -> tuple[str, ...]:
    """Recompute batch normalization's statistics on the calibration samples, where that lowers the
    output error."""
    weights, before = model.get_weights(), _output_error(model, dense, samples)
    batches = tf.data.Dataset.from_tensor_slices(tuple(samples)).batch(BATCH)
    recalibrate(model, batches.map(lambda *xs: (xs[0] if len(xs) == 1 else xs,)))
    if _output_error(model, dense, samples) < before:
        return ("batch-norm statistics were recalibrated on calibration samples",)
    model.set_weights(weights)
    return ()


def _output_error(
    model: tf.keras.Model, dense: tf.keras.Model, samples: Sequence[np.ndarray]
) -> float:
    """Return the mean squared difference to the dense network's outputs, over the samples."""
    errors = []
    for start in range(0, len(samples[0]), BATCH):
        batch = [values[start : start + BATCH] for values in samples]
        inputs = batch[0] if len(batch) == 1 else batch
        for output, expected in zip(
            tf.nest.flatten(model(inputs, training=False)),
            tf.nest.flatten(dense(inputs, training=False)),
            strict=True,
        ):
            errors.append(float(tf.reduce_mean(tf.square(output - expected))))
    return float(np.mean(errors))
