"""Activation sparsity: its measurement, and training for more of it.

ReLU outputs exact zeros, and a penalty on its outputs makes more: L1, or the square of L1 by L2
(Hoyer 2004; for activations Kurtz et al. 2020, "Inducing and exploiting activation sparsity for
fast neural network inference"). Smooth activation functions become ReLU first (Mirzadeh et al.
2023, arXiv 2310.04564). Stock runtimes are faster with these zeros only where a layer reads few
values of many, as `layers.TopK` and `layers.SparseDense` do together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, representative
from edgesparse.layers.experts import Experts
from edgesparse.methods.coverage import MIN_SPARSITY, Sparsified
from edgesparse.methods.masks import HoldMasks, Masked
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import fit, recipe_of
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Activations, matches

SMOOTH = ("gelu", "silu", "swish", "elu", "selu", "softplus")
RECTIFIERS = ("relu", "relu6")
SAMPLES = 128
_SMALL = 1e-8
_BATCH = 16


def activations(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Activations, progress: Progress
) -> Sparsified:
    """Train `model` in place for more zeros in its activations; zeros of weights stay.

    Raises:
        UsageError: a glob matches nothing, or no layer has an activation that can be zero.
    """
    recipe = recipe_of(model, dataset, train)
    calibration = representative(dataset, SAMPLES)
    samples = [calibration[name] for name in recipe.inputs]
    before = zero_shares(model, samples)
    swapped = (
        [layer.name for layer in _layers_ending_in(model, SMOOTH, spec)] if spec.to_relu else []
    )
    for layer in _layers_ending_in(model, SMOOTH, spec):
        if spec.to_relu:
            layer.activation = tf.keras.activations.relu
    chosen = list(_layers_ending_in(model, RECTIFIERS, spec))
    _check(model, chosen, spec)
    if spec.penalty is not None:
        scale = _scale(model, chosen, samples) if spec.penalty == "l1" else 1.0
        for layer in chosen:
            each = spec.penalty_weight * scale / len(chosen)
            layer.activity_regularizer = Penalty(spec.penalty, each)
    held = [Masked(kernel) for kernel in kernels(model).values() if _has_zeros(kernel)]
    for masked in held:
        masked.keep_zeros()
    history = fit(model, dataset, train, progress, callbacks=[HoldMasks(held)] if held else [])
    for masked in held:
        masked.apply()
    for layer in chosen:
        layer.activity_regularizer = None
    notes = []
    if swapped:
        notes.append(f"smooth activations replaced by ReLU in {_named(swapped)}")
    now, then = overall(zero_shares(model, samples)), overall(before)
    notes.append(f"zeros in outputs of ReLU layers: {then:.0%} -> {now:.0%}")
    return Sparsified(model, history, (), tuple(notes), keeps_layers=not swapped)


def _has_zeros(kernel: Any) -> bool:
    return bool(np.mean(kernel.variable.numpy() == 0) > MIN_SPARSITY)


def _named(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} others" if len(names) > 4 else "")


def _activation(layer: Any) -> str:
    """Return the name of a layer's activation function; empty where it has none at its end."""
    if isinstance(layer, tf.keras.layers.ReLU):
        return "relu" if not layer.negative_slope and not layer.threshold else "leaky"
    if isinstance(layer, tf.keras.layers.RNN | Experts):
        return ""  # Its activation is not at its end.
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def _layers_ending_in(
    model: tf.keras.Model, names: tuple[str, ...], spec: Activations | None = None
) -> Iterator[Any]:
    """Yield the layers that end in one of these activation functions."""
    ends = {id(tensor.node.layer) for tensor in model.outputs}
    for layer in model.layers:
        excluded = spec is not None and matches(spec.exclude, [layer.name])
        if _activation(layer) in names and id(layer) not in ends and not excluded:
            yield layer


def _check(model: tf.keras.Model, chosen: list[Any], spec: Activations) -> None:
    names = [layer.name for layer in model.layers]
    for glob in spec.exclude:
        if not matches(glob, names):
            raise UsageError(f"{glob!r} matches no layer{did_you_mean(glob, names)}")
    if not chosen:
        kinds = sorted({_activation(layer) for layer in model.layers} - {"", "linear"})
        raise UsageError(
            "no layer ends in ReLU, which has exact zeros"
            + (f"; the model has {', '.join(kinds)}" if kinds else "")
            + (": set 'to_relu: true'" if set(kinds) & set(SMOOTH) else "")
        )


class Penalty(tf.keras.regularizers.Regularizer):
    """`weight` times the mean of an activation, relative to its scale: l1, mean |x|; hoyer,
    (sum |x|)^2 / sum x^2 by the count of values: 0 where all but one are zero, 1 where all are
    alike."""

    def __init__(self, kind: str, weight: float) -> None:
        self.kind, self.weight = kind, weight

    def __call__(self, x: Any) -> Any:
        # Keras divides a layer's activity penalty by the batch size.
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
    """Return the factor that scales the present mean of activations to 1."""
    nodes = [node for layer in layers for node in nodes_of(model, layer)]
    tensors = [t for node in nodes for t in tf.nest.flatten(node.outputs)]
    outputs = _outputs(tf.keras.Model(model.inputs, tensors), samples)
    return 1 / max(_SMALL, float(np.mean([np.abs(output).mean() for output in outputs])))


def _outputs(network: tf.keras.Model, samples: list[np.ndarray]) -> list[np.ndarray]:
    outputs = network(samples[0] if len(samples) == 1 else samples, training=False)
    return [output.numpy() for output in tf.nest.flatten(outputs)]


def nodes_of(model: tf.keras.Model, layer: Any) -> list[Any]:
    """Return the nodes at which a model calls a layer. A layer can be in other graphs, too: in the
    one that the user has built."""
    in_model = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    return [node for node in layer.inbound_nodes if id(node) in in_model]


def zero_shares(
    model: tf.keras.Model, samples: list[np.ndarray]
) -> Mapping[str, tuple[float, int]]:
    """Return for each layer that ends in ReLU the share of zeros in its outputs, and their number.

    Args:
        model: a functional model.
        samples: arrays [n, ...] for each input.

    Returns:
        By layer: the share of zeros over all samples, and the number of values per sample.
    """
    layers = list(_layers_ending_in(model, RECTIFIERS))
    if not layers:
        return {}
    tensors = [tf.nest.flatten(nodes_of(model, layer)[0].outputs)[0] for layer in layers]
    network = tf.keras.Model(model.inputs, tensors)
    zeros, sizes, count = np.zeros(len(layers)), np.zeros(len(layers), int), len(samples[0])
    # All layers in a pass, few samples at a time: activations can be large.
    for start in range(0, count, _BATCH):
        part = [values[start : start + _BATCH] for values in samples]
        for index, values in enumerate(_outputs(network, part)):
            zeros[index] += np.sum(values == 0)
            sizes[index] = np.prod(values.shape[1:])
    shares = zeros / (count * sizes)
    names = [layer.name for layer in layers]
    return dict(zip(names, zip(shares.tolist(), sizes.tolist(), strict=True), strict=True))


def overall(shares: Mapping[str, tuple[float, int]]) -> float:
    """Return the share of zeros over all layers."""
    total = sum(size for _, size in shares.values())
    return sum(share * size for share, size in shares.values()) / max(1, total)
