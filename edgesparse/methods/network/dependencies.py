"""Channel dependencies of a Keras model: sets of channels that must be removed together.

Every output channel of a layer is an atom until something ties it to another: an addition, a
depthwise convolution, a shared layer. A dependency graph of layers (Fang et al. 2023, arXiv
2301.12900) becomes one of channels here, so that concatenations and flattened images need no
special case. Layers that cannot be followed keep their channels, with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network import probing
from edgesparse.methods.network.layer_channels import (
    MERGES,
    Axes,
    LayerChannels,
    concatenates,
    groups_of,
    inner,
    is_plain,
    is_producer,
    is_user_defined,
    joins_channels,
    mixes_outputs,
    positions_of,
    products_of,
    untraceable,
)
from edgesparse.models.files.equivalence import require_equal


@dataclass(frozen=True)
class Group:
    """Atoms of the same layers: removing an atom removes a channel from each of them."""

    layers: tuple[str, ...]
    atoms: np.ndarray

    @property
    def name(self) -> str:
        return ", ".join(self.layers)


@dataclass(frozen=True)
class Dependencies:
    """A model's channels. `fixed` bool [atoms]: atoms that cannot be removed; `reasons` by the
    layer that prevents it."""

    layers: Mapping[str, LayerChannels]
    fixed: np.ndarray
    reasons: Mapping[str, str]

    def groups(self) -> list[Group]:
        """Return every set of removable atoms, in the order of the model's layers."""
        owners: dict[int, list[str]] = {}
        for name, channels in self.layers.items():
            if channels.produces:
                for atom in channels.outputs.tolist():
                    owners.setdefault(atom, []).append(name)
            if channels.heads is not None:
                for atom in channels.heads.tolist():
                    owners.setdefault(atom, []).append(f"{name}/heads")
        sets: dict[tuple[str, ...], list[int]] = {}
        for atom, names in owners.items():
            if not self.fixed[atom]:
                sets.setdefault(tuple(names), []).append(atom)
        return [Group(tuple(dict.fromkeys(k)), np.array(sorted(v))) for k, v in sets.items()]


def trace(model: tf.keras.Model) -> Dependencies:
    """Follow every channel through a functional or sequential model."""
    tracer = _Tracer()
    inputs = [tracer.new(_width(t.shape)) for t in model.inputs]
    for labels in inputs:
        tracer.fix(labels)
    for name, labels in zip(model.output_names, tracer.follow(model, inputs), strict=True):
        tracer.fix(labels, name, "it is an output of the model")
    return tracer.result()


@dataclass
class _Tracer:
    parents: list[int] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    channels: dict[str, LayerChannels] = field(default_factory=dict)

    def new(self, count: int) -> np.ndarray:
        first = len(self.parents)
        self.parents += range(first, first + count)
        return np.arange(first, first + count)

    def fix(self, labels: np.ndarray, layer: str = "", reason: str = "") -> None:
        self.fixed.update(labels.tolist())
        if reason:
            self.reasons.setdefault(layer, reason)

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low

    def follow(self, model: tf.keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        labels_of = {id(t): labels for t, labels in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                input_labels = [labels_of[id(t)] for t in node.keras_inputs]
                outputs = tf.nest.flatten(node.outputs)
                if isinstance(node.layer, tf.keras.Model):
                    for labels in input_labels:
                        self.fix(labels, node.layer.name, "it is a nested model")
                    results = self.follow(node.layer, input_labels)
                else:
                    results = self._through(node, input_labels, outputs)
                labels_of.update(zip(map(id, outputs), results, strict=True))
        return [labels_of[id(t)] for t in model.outputs]

    def _through(self, node: Any, inputs: list[np.ndarray], outputs: list[Any]) -> list[np.ndarray]:
        why = untraceable(node, inputs, outputs)
        if why and len(outputs) == 1 and len(inputs) == 1 and is_user_defined(node.layer):
            if probing.treats_channels_alike(node):
                self._note(node.layer, inputs[0], inputs[0], 0)
                return [inputs[0]]
            rows = probing.input_rows(node) if len(inputs[0]) > 1 else None
            if rows is not None:
                new_labels = self.new(_width(outputs[0].shape))
                self.fix(new_labels, node.layer.name, why)
                self._note(node.layer, inputs[0], new_labels, positions_of(node), rows)
                return [new_labels]
        if why:
            for labels in inputs:
                self.fix(labels, node.layer.name, why)
            if node.layer.weights:
                self._count(node)
            results = [self.new(_width(t.shape)) for t in outputs]
            for labels in results:
                self.fix(labels)
            return results
        return [self._followed(node, inputs, outputs[0].shape)]

    def _followed(self, node: Any, inputs: list[np.ndarray], shape: Any) -> np.ndarray:
        """Return the labels behind a layer that can be followed."""
        layer: Any = node.layer
        kind, layers = type(inner(layer)).__name__, tf.keras.layers
        if kind == "Concatenate" and (len(inputs) == 1 or joins_channels(layer, node)):
            return np.concatenate(inputs)
        if concatenates(node):
            return np.concatenate(inputs)
        if kind in MERGES or kind == "Concatenate":
            return self._merged(inputs, layer.name)
        if kind == "Flatten":
            return np.tile(inputs[0], _width(shape) // max(1, len(inputs[0])))
        if is_plain(node):
            self._note(layer, inputs[0], inputs[0], 0)
            return inputs[0]
        if kind == "TFOpLambda":
            return self._merged(inputs, layer.name)
        if kind in ("Attention", "AdditiveAttention"):
            outputs = self._merged([inputs[0], inputs[-1]], layer.name)
            self._note(layer, outputs, inputs[1], 0, products=products_of(node))
            return inputs[1]
        positions = positions_of(node)
        if isinstance(inner(layer), layers.DepthwiseConv1D | layers.DepthwiseConv2D):
            outputs = np.repeat(inputs[0], inner(layer).depth_multiplier)
        elif is_producer(layer):
            return self._produced(node, inputs[0], shape)
        else:  # A normalization or PReLU.
            outputs, positions = inputs[0], 0
        self._note(layer, inputs[0], outputs, positions)
        if kind == "BatchNormalization":
            before = self.channels.get(node.keras_inputs[0].node.layer.name)
            if before is not None and before.produces:
                self.channels[before.layer.name] = replace(before, normalizer=layer)
        return outputs

    def _produced(self, node: Any, inputs: np.ndarray, shape: Any) -> np.ndarray:
        """Return the labels of a layer's new channels."""
        layer: Any = node.layer
        previous = self.channels.get(layer.name)
        # Concatenated directions have the same units, which are removed from both.
        both = isinstance(layer, tf.keras.layers.Bidirectional) and layer.merge_mode == "concat"
        outputs = previous.outputs if previous else self.new(_width(shape) // (2 if both else 1))
        if mixes_outputs(layer):
            self.fix(outputs, layer.name, "its softmax mixes channels")
        self._tie_groups(inputs, outputs, groups_of(inner(layer)))
        self._note(layer, inputs, outputs, positions_of(node), products=products_of(node))
        if isinstance(layer, tf.keras.layers.MultiHeadAttention) and previous is None:
            heads = self.new(layer.get_config()["num_heads"])
            self.channels[layer.name] = replace(self.channels[layer.name], heads=heads)
        return np.tile(outputs, 2) if both else outputs

    def _tie_groups(self, inputs: np.ndarray, outputs: np.ndarray, groups: int) -> None:
        """Tie the groups of a convolution: the same channels of each are removed, from inputs and
        outputs, or, of many small groups, whole ones."""
        if groups == 1:
            return
        inputs, outputs = inputs.reshape(groups, -1), outputs.reshape(groups, -1)
        if groups < inputs.shape[1]:
            for rows in (inputs, outputs):
                for row in rows[1:]:
                    self.unite(rows[0], row)
        else:
            for row in np.concatenate([inputs, outputs], axis=1):
                self.unite(np.repeat(row[:1], len(row) - 1), row[1:])

    def _note(
        self,
        layer: Any,
        inputs: np.ndarray,
        outputs: np.ndarray,
        positions: int,
        rows: Axes | None = None,
        products: int = 0,
    ) -> None:
        previous = self.channels.get(layer.name)
        if previous is not None:  # A layer that is called twice has the same weights both times.
            self.unite(previous.inputs, inputs)
            self.unite(previous.outputs, outputs)
            inputs, outputs, positions = (
                previous.inputs,
                previous.outputs,
                previous.positions + positions,
            )
            products += previous.products
        heads = previous.heads if previous is not None else None
        self.channels[layer.name] = LayerChannels(
            layer, inputs, outputs, positions, rows, heads=heads, products=products
        )

    def _count(self, node: Any) -> None:
        """Record a layer that cannot be followed with its full size, for the model's cost."""
        layer, previous = node.layer, self.channels.get(node.layer.name)
        times, products = positions_of(node), products_of(node)
        if previous is not None:
            times, products = times + previous.positions, products + previous.products
        nothing, rows = np.zeros(0, int), [dict[int, str]() for _ in layer.weights]
        self.channels[layer.name] = LayerChannels(
            layer, nothing, nothing, times, rows, products=products
        )

    def _merged(self, inputs: list[np.ndarray], name: str) -> np.ndarray:
        width = max(len(labels) for labels in inputs)
        full = [labels for labels in inputs if len(labels) == width]
        for labels in inputs:
            if len(labels) < width:  # Broadcasting.
                self.fix(labels, name, "it broadcasts a channel to several")
        for other in full[1:]:
            self.unite(full[0], other)
        return full[0]

    def result(self) -> Dependencies:
        atoms = np.array([self.root(label) for label in range(len(self.parents))], dtype=int)
        fixed = np.zeros(len(atoms), bool)
        fixed[atoms[sorted(self.fixed)]] = True
        layers = {
            name: replace(
                c,
                inputs=atoms[c.inputs],
                outputs=atoms[c.outputs],
                heads=None if c.heads is None else atoms[c.heads],
            )
            for name, c in self.channels.items()
        }
        return Dependencies(layers, fixed, self.reasons)


def _width(shape: Any) -> int:
    return int(shape[-1]) if len(shape) > 1 and shape[-1] is not None else 1


_OVER_CHANNELS = ("LayerNormalization", "GroupNormalization", "UnitNormalization")


def check_shrunk(
    model: tf.keras.Model,
    smaller: tf.keras.Model,
    dependencies: Dependencies,
    kept: np.ndarray,
    samples: Any,
) -> None:
    """Raise EdgesparseError where the smaller model's outputs differ from those of `model` with
    zeros in place of the removed atoms. Not checked where a normalization over channels loses some
    of them: zeros count in its mean."""
    for c in dependencies.layers.values():
        whole = all(mask.all() for mask in c.masks(kept).values())
        if type(c.layer).__name__ in _OVER_CHANNELS and not whole:
            return
    weights = model.get_weights()
    for c in dependencies.layers.values():
        masks, layer_weights = c.masks(kept), c.layer.get_weights()
        for values, axes in zip(layer_weights, c.axes, strict=True):
            for axis, name in axes.items():
                np.moveaxis(values, axis, 0)[~masks[name]] = 0
        c.layer.set_weights(layer_weights)
    require_equal("removing channels", model, smaller, samples)
    model.set_weights(weights)
