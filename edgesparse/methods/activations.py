"""Zeros between layers: how many there are, and how a model gets more of them.

A rectifier gives exact zeros, and a penalty on what it gives makes more: L1, or the square of L1 by
L2 (Hoyer 2004; for activations Kurtz et al. 2020, "Inducing and exploiting activation sparsity for
fast neural network inference"). Smooth activations become rectifiers first (Mirzadeh et al. 2023,
arXiv 2310.04564). Stock runtimes gain time by these zeros only where a layer reads a few values of
many, as `layers.TopK` and `layers.SparseDense` do together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, representative
from edgesparse.layers.experts import Experts
from edgesparse.methods.masks import HoldMasks, Masked
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.report import MIN_SPARSITY, Sparsified
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import fit, recipe_of
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Activations, matches

SMOOTH = ("gelu", "silu", "swish", "elu", "selu", "softplus")
RECTIFIERS = ("relu", "relu6")
SAMPLES = 128
_SMALL = 1e-8
_AT_ONCE = 16


def activations(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Activations, progress: Progress
) -> Sparsified:
    """Let activations of `model` be zero more often, in place; its weights' zeros stay.

    Raises:
        UsageError: a glob matches nothing, or no layer has an activation that can be zero.
    """
    recipe = recipe_of(model, dataset, train)
    given = representative(dataset, SAMPLES)
    samples = [given[name] for name in recipe.inputs]
    before = shares_of_zeros(model, samples)
    swapped = [layer.name for layer in _with(model, SMOOTH, spec)] if spec.to_relu else []
    for layer in _with(model, SMOOTH, spec):
        if spec.to_relu:
            layer.activation = tf.keras.activations.relu
    chosen = list(_with(model, RECTIFIERS, spec))
    _check(model, chosen, spec)
    if spec.penalty is not None:
        scale = _scale(model, chosen, samples) if spec.penalty == "l1" else 1.0
        for layer in chosen:
            each = spec.penalty_weight * scale / len(chosen)
            layer.activity_regularizer = Penalty(spec.penalty, each)
    held = [Masked(kernel.variable) for kernel in kernels(model).values() if _has_zeros(kernel)]
    for one in held:
        one.keep_zeros()
    history = fit(model, dataset, train, progress, callbacks=[HoldMasks(held)] if held else [])
    for one in held:
        one.apply()
    for layer in chosen:
        layer.activity_regularizer = None
    notes = []
    if swapped:
        notes.append(f"ReLU instead of smooth activations in {_named(swapped)}")
    now, then = overall(shares_of_zeros(model, samples)), overall(before)
    notes.append(f"activations: {now:.0%} zeros where rectifiers are, before {then:.0%}")
    return Sparsified(model, history, (), tuple(notes), keeps_layers=not swapped)


def _has_zeros(kernel: Any) -> bool:
    return bool(np.mean(kernel.variable.numpy() == 0) > MIN_SPARSITY)


def _named(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} others" if len(names) > 4 else "")


def _activation(layer: Any) -> str:
    """The name of what a layer does to each value in the end."""
    if isinstance(layer, tf.keras.layers.ReLU):
        return "relu" if not layer.negative_slope and not layer.threshold else "leaky"
    if isinstance(layer, tf.keras.layers.RNN | Experts):
        return ""  # Its activation is within.
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def _with(
    model: tf.keras.Model, names: tuple[str, ...], spec: Activations | None = None
) -> Iterator[Any]:
    """The layers that end in such an activation."""
    ends = {id(tensor.node.layer) for tensor in model.outputs}
    for layer in model.layers:
        excluded = spec is not None and matches(spec.exclude, [layer.name])
        if _activation(layer) in names and id(layer) not in ends and not excluded:
            yield layer


def _check(model: tf.keras.Model, chosen: list[Any], spec: Activations) -> None:
    known = [layer.name for layer in model.layers]
    for glob in spec.exclude:
        if not matches(glob, known):
            raise UsageError(f"{glob!r} matches no layer{did_you_mean(glob, known)}")
    if not chosen:
        kinds = sorted({_activation(layer) for layer in model.layers} - {"", "linear"})
        raise UsageError(
            "no layer ends in a rectifier, whose zeros are exact"
            + (f"; the model has {', '.join(kinds)}" if kinds else "")
            + (": say 'to_relu: true'" if set(kinds) & set(SMOOTH) else "")
        )


class Penalty(tf.keras.regularizers.Regularizer):
    """`weight` times the mean of an activation, relative to its scale: l1, mean |x|; hoyer,
    (sum |x|)^2 / sum x^2 by the count of values: 0 where all but one are zero, 1 where all are
    alike."""

    def __init__(self, kind: str, weight: float) -> None:
        self.kind, self.weight = kind, weight

    def __call__(self, x: Any) -> Any:
        # Keras divides by the batch what it gets of a layer's outputs.
        count = tf.cast(tf.shape(x)[0], x.dtype)
        flat = tf.abs(tf.reshape(x, (tf.shape(x)[0], -1)))
        if self.kind == "l1":
            return self.weight * count * tf.reduce_mean(flat)
        sums = tf.square(tf.reduce_sum(flat, 1)) / (tf.reduce_sum(tf.square(flat), 1) + _SMALL)
        width = tf.cast(tf.shape(flat)[1], x.dtype)
        return self.weight * tf.reduce_sum(sums / width)

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "weight": self.weight}


def _scale(model: tf.keras.Model, layers: list[Any], samples: list[np.ndarray]) -> float:
    """What makes a mean of 1 of what the activations are now: nobody knows their scale."""
    nodes = [node for layer in layers for node in uses(model, layer)]
    tensors = [t for node in nodes for t in tf.nest.flatten(node.outputs)]
    found = _answers(tf.keras.Model(model.inputs, tensors), samples)
    return 1 / max(_SMALL, float(np.mean([np.abs(one).mean() for one in found])))


def _answers(ask: tf.keras.Model, samples: list[np.ndarray]) -> list[np.ndarray]:
    found = ask(samples[0] if len(samples) == 1 else samples, training=False)
    return [one.numpy() for one in tf.nest.flatten(found)]


def uses(model: tf.keras.Model, layer: Any) -> list[Any]:
    """Where a model calls a layer: nodes of its own graph. A layer may be in other graphs, too: in
    that which its user has built."""
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    return [node for node in layer.inbound_nodes if id(node) in own]


def shares_of_zeros(
    model: tf.keras.Model, samples: list[np.ndarray]
) -> Mapping[str, tuple[float, int]]:
    """Of each layer that ends in a rectifier: the share of zeros among what it gives for samples
    [n, ...] of each input, and how many values it gives for one."""
    layers = list(_with(model, RECTIFIERS))
    if not layers:
        return {}
    tensors = [tf.nest.flatten(uses(model, layer)[0].outputs)[0] for layer in layers]
    ask = tf.keras.Model(model.inputs, tensors)
    zeros, sizes, count = np.zeros(len(layers)), np.zeros(len(layers), int), len(samples[0])
    # All layers in one pass, some samples at a time: what is between layers can be large.
    for start in range(0, count, _AT_ONCE):
        part = [values[start : start + _AT_ONCE] for values in samples]
        for place, values in enumerate(_answers(ask, part)):
            zeros[place] += np.sum(values == 0)
            sizes[place] = np.prod(values.shape[1:])
    shares = zeros / (count * sizes)
    names = [layer.name for layer in layers]
    return dict(zip(names, zip(shares.tolist(), sizes.tolist(), strict=True), strict=True))


def overall(found: Mapping[str, tuple[float, int]]) -> float:
    """Over all values of all layers."""
    total = sum(size for _, size in found.values())
    return sum(share * size for share, size in found.values()) / max(1, total)
