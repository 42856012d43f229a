"""Zeros without training and without labels: each layer's outputs are reconstructed on calibration
inputs with the weights that are left.

Layers go in their order; each is given what the layers before it give by now, and is to give what
the dense network gave. Methods and sources: network/least_squares.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse import data
from edgesparse.data import Dataset
from edgesparse.methods.activations import uses
from edgesparse.methods.magnitude import misfit
from edgesparse.methods.masks import HoldMasks, Masked
from edgesparse.methods.network.kernels import Kernel, choose
from edgesparse.methods.network.least_squares import (
    Seen,
    Tiles,
    allocated,
    losses,
    pruned,
    too_large,
    watching,
)
from edgesparse.methods.report import Sparsified, coverage, measure, require_covered
from edgesparse.methods.training.batch_norm import settle
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import compared, fit, recipe_of
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import OneShot, Pattern
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY

BATCH = 50
MOST_VALUES = 2**27
"""A batch is smaller where a layer would be given more values in it."""
ROWS = 30_000
"""Of a layer's positions over all samples at least so many are looked at, and four for each
input."""
UNKNOWN = "one-shot knows fully connected layers and convolutions without groups"


def one_shot(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: OneShot, progress: Progress
) -> Sparsified:
    """Make `model` sparse in place; it is fine-tuned only where `spec` has epochs.

    Raises:
        UsageError: a glob matches nothing, or there is no layer that can be reconstructed.
        EdgesparseError: less than half was reached of what was asked for.
    """
    chosen, left = choose(model, spec.exclude)
    for name, kernel in list(chosen.items()):
        width = kernel.shape[-1]
        why = too_large(kernel.size // width, width) if _is_known(kernel, model) else UNKNOWN
        if why:
            left[name] = (kernel.size, why)
            del chosen[name]
    if not chosen:
        raise UsageError(f"there is no layer to reconstruct: {why}")
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    goal = (
        0.5
        if spec.pattern == "2:4"
        else min(MAX_KERNEL_SPARSITY[spec.method], spec.sparsity * everything / total)
    )
    dense = tf.keras.models.clone_model(model)
    dense.set_weights(model.get_weights())
    require_equal("copying the model", model, dense, compared(model, dataset))
    given = data.representative(dataset, spec.calibration_samples)
    samples = [given[name] for name in recipe_of(model, dataset, train).inputs]
    shares = dict.fromkeys(chosen, goal)
    if spec.pattern != "2:4" and len(chosen) > 1:
        half = _part(progress, 0.0)
        shares = _allocated(chosen, model, dense, samples, goal, spec.pattern, half)
        progress = _part(progress, 0.5)
    layers = []
    for number, (name, kernel) in enumerate(chosen.items()):
        progress(number / len(chosen), name)
        goal = shares[name]
        note = misfit(spec.pattern, kernel)
        pattern: Pattern = "unstructured" if note else spec.pattern
        _reconstruct(kernel, dense.get_layer(kernel.layer), model, dense, samples, goal, pattern)
        layers.append((kernel, pattern, goal, note))
    notes: tuple[str, ...] = (
        f"no labels and no training: {len(samples[0]):,} calibration samples",
    )
    notes += _settled(model, dense, samples)
    history = {}
    if train.epochs:
        held = [Masked(kernel.variable) for kernel in chosen.values()]
        for one in held:
            one.keep_zeros()
        history = fit(model, dataset, train, progress, callbacks=[HoldMasks(held)])
        for one in held:
            one.apply()
    measured = tuple(measure(*one) for one in layers)
    asked = 0.5 if spec.pattern == "2:4" else spec.sparsity
    done = coverage(model, asked, {name: why for name, (_, why) in left.items()})
    require_covered(done, spec.allow_partial)
    return Sparsified(model, history, measured, notes, done, keeps_layers=True)


def _is_known(kernel: Kernel, model: tf.keras.Model) -> bool:
    layers = tf.keras.layers
    plain = type(kernel.owner) in (layers.Dense, layers.Conv1D, layers.Conv2D)
    return (
        plain
        and getattr(kernel.owner, "groups", 1) == 1
        and any(layer is kernel.owner for layer in model.layers)
    )


def _part(progress: Progress, begin: float) -> Progress:
    return lambda share, text: progress(begin + share / 2, text)


def _allocated(
    chosen: Mapping[str, Kernel],
    model: tf.keras.Model,
    dense: tf.keras.Model,
    samples: Sequence[np.ndarray],
    goal: float,
    pattern: Pattern,
    progress: Progress,
) -> dict[str, float]:
    """Which share of zeros each layer gets, by what each loses alone."""
    errors, sizes = {}, {}
    for number, (name, kernel) in enumerate(chosen.items()):
        progress(number / len(chosen), f"{name}: what it bears")
        own: Pattern = "unstructured" if misfit(pattern, kernel) else pattern
        # Nothing has gone yet: both networks are the dense one.
        weights, seen = _seen(kernel, dense.get_layer(kernel.layer), dense, dense, samples)
        known = seen.centred() if kernel.owner.use_bias else seen
        sizes[name] = kernel.size
        errors[name] = losses(weights, known, own)
    return allocated(errors, sizes, goal)


def _seen(
    kernel: Kernel,
    twin: Any,
    model: tf.keras.Model,
    dense: tf.keras.Model,
    samples: Sequence[np.ndarray],
) -> tuple[np.ndarray, Seen | Tiles]:
    """A layer's weights [inputs, outputs], and what is known of it on the samples."""
    weights = kernel.variable.numpy().reshape(-1, kernel.shape[-1]).astype(np.float64)
    before = twin.kernel.numpy().reshape(weights.shape)
    seen, rows = watching(before), max(ROWS, 4 * len(weights))
    then = _inputs(dense, twin, samples, rows)
    if model is dense:
        for x in then:
            seen.add(x, x @ before)
        return weights, seen
    for x, wanted in zip(_inputs(model, kernel.owner, samples, rows), then, strict=True):
        seen.add(x, wanted @ before)
    return weights, seen


def _reconstruct(
    kernel: Kernel,
    twin: Any,
    model: tf.keras.Model,
    dense: tf.keras.Model,
    samples: Sequence[np.ndarray],
    sparsity: float,
    pattern: Pattern,
) -> None:
    """Make one layer sparse. `twin` is the same layer of the dense network."""
    layer, shape = kernel.owner, kernel.shape
    weights, seen = _seen(kernel, twin, model, dense, samples)
    known = seen.centred() if layer.use_bias else seen
    found = pruned(weights, known, sparsity, pattern)
    kernel.variable.assign(found.reshape(shape))
    if layer.use_bias:
        shift = seen.mean_wanted - seen.mean_input @ found
        layer.bias.assign(twin.bias + tf.cast(shift, twin.bias.dtype))


def _inputs(
    model: tf.keras.Model, layer: Any, samples: Sequence[np.ndarray], rows: int
) -> Iterator[np.ndarray]:
    """What a layer is given, as rows [n, inputs] of its kernel, some positions of each sample."""
    # A layer may be in other graphs, too: in the model that a flat one was built from.
    source = tf.keras.Model(model.inputs, [node.keras_inputs[0] for node in uses(model, layer)])
    count, size = len(samples[0]), _batch(layer)
    for number, start in enumerate(range(0, count, size)):
        batch = [values[start : start + size] for values in samples]
        given = source(batch[0] if len(batch) == 1 else batch, training=False)
        patches = [_patches(values, layer).numpy() for values in tf.nest.flatten(given)]
        flat = np.concatenate([values.reshape(-1, values.shape[-1]) for values in patches])
        wanted = max(1, rows * len(batch[0]) // count)
        if len(flat) > wanted:  # The same positions for both networks.
            random = np.random.default_rng(number)
            flat = flat[np.sort(random.choice(len(flat), wanted, replace=False))]
        yield flat.astype(np.float64)


def _batch(layer: Any) -> int:
    """How many samples go at a time, so that what the layer is given stays within bounds."""
    kernel = layer.kernel.shape
    places = [size or 1 for size in layer.get_output_at(0).shape[1:-1]]
    values = int(np.prod(places)) * int(np.prod(kernel[:-1]))
    return max(1, min(BATCH, MOST_VALUES // max(1, values)))


def _patches(given: Any, layer: Any) -> Any:
    """What each output of a layer is computed from: [n, ..., inputs], in its kernel's order."""
    if isinstance(layer, tf.keras.layers.Dense):
        return given
    one = isinstance(layer, tf.keras.layers.Conv1D)
    padding = layer.padding.upper()
    if one:
        if padding == "CAUSAL":
            before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            given, padding = tf.pad(given, [[0, 0], [before, 0], [0, 0]]), "VALID"
        given = given[:, None]
    sizes, strides, rates = (
        [1, *((1, *v) if one else v), 1]
        for v in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    return tf.image.extract_patches(given, sizes, strides, rates, padding)


def _settled(
    model: tf.keras.Model, dense: tf.keras.Model, samples: Sequence[np.ndarray]
) -> tuple[str, ...]:
    """Recompute batch normalization's statistics on the calibration inputs, where the answers come
    nearer to the dense network's by it."""
    weights, before = model.get_weights(), _apart(model, dense, samples)
    batches = tf.data.Dataset.from_tensor_slices(tuple(samples)).batch(BATCH)
    settle(model, batches.map(lambda *xs: (xs[0] if len(xs) == 1 else xs,)))
    if _apart(model, dense, samples) < before:
        return ("the statistics of batch normalization were recomputed on them",)
    model.set_weights(weights)
    return ()


def _apart(model: tf.keras.Model, dense: tf.keras.Model, samples: Sequence[np.ndarray]) -> float:
    """How far the answers are from the dense network's, over the samples: mean squares."""
    found = []
    for start in range(0, len(samples[0]), BATCH):
        batch = [values[start : start + BATCH] for values in samples]
        one = batch[0] if len(batch) == 1 else batch
        for own, other in zip(
            tf.nest.flatten(model(one, training=False)),
            tf.nest.flatten(dense(one, training=False)),
            strict=True,
        ):
            found.append(float(tf.reduce_mean(tf.square(own - other))))
    return float(np.mean(found))
