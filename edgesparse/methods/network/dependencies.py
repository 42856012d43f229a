"""Which channels of a Keras model can only be removed together, found by following them.

Every output channel of a layer is an atom of its own until something ties it to another: an
addition, a depthwise convolution, a shared layer. What a dependency graph does layer by layer (Fang
et al. 2023, arXiv 2301.12900) is done channel by channel here, so that concatenations and flattened
images need no special case. What cannot be followed keeps its channels, with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network import probing
from edgesparse.methods.network.layers import (
    MERGES,
    Axes,
    LayerChannels,
    concatenates,
    groups_of,
    inner,
    is_own,
    is_plain,
    is_producer,
    joins_channels,
    mixes_outputs,
    not_followed,
    positions_of,
    products_of,
)
from edgesparse.models.files.equivalence import require_equal


@dataclass(frozen=True)
class Group:
    """Atoms that the same layers have: removing one takes a channel from each of them."""

    layers: tuple[str, ...]
    atoms: np.ndarray

    @property
    def name(self) -> str:
        return ", ".join(self.layers)


@dataclass(frozen=True)
class Dependencies:
    """A model's channels. `fixed` bool [atoms]: they cannot be removed; `reasons` say why, by the
    layer that does not let them."""

    layers: Mapping[str, LayerChannels]
    fixed: np.ndarray
    reasons: Mapping[str, str]

    def groups(self) -> list[Group]:
        """Every set of atoms that could be removed, in the order of the model's layers."""
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
    found: dict[str, LayerChannels] = field(default_factory=dict)

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
        known = {id(t): labels for t, labels in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                given = [known[id(t)] for t in node.keras_inputs]
                outputs = tf.nest.flatten(node.outputs)
                if isinstance(node.layer, tf.keras.Model):
                    for labels in given:
                        self.fix(labels, node.layer.name, "it is a model inside the model")
                    results = self.follow(node.layer, given)
                else:
                    results = self._through(node, given, outputs)
                known.update(zip(map(id, outputs), results, strict=True))
        return [known[id(t)] for t in model.outputs]

    def _through(self, node: Any, given: list[np.ndarray], outputs: list[Any]) -> list[np.ndarray]:
        why = not_followed(node, given, outputs)
        if why and len(outputs) == 1 and len(given) == 1 and is_own(node.layer):
            if probing.treats_channels_alike(node):
                self._note(node.layer, given[0], given[0], 0)
                return [given[0]]
            rows = probing.input_rows(node) if len(given[0]) > 1 else None
            if rows is not None:
                own = self.new(_width(outputs[0].shape))
                self.fix(own, node.layer.name, why)
                self._note(node.layer, given[0], own, positions_of(node), rows)
                return [own]
        if why:
            for labels in given:
                self.fix(labels, node.layer.name, why)
            if node.layer.weights:
                self._count(node)
            results = [self.new(_width(t.shape)) for t in outputs]
            for labels in results:
                self.fix(labels)
            return results
        return [self._followed(node, given, outputs[0].shape)]

    def _followed(self, node: Any, given: list[np.ndarray], shape: Any) -> np.ndarray:
        """The labels behind a layer that can be followed."""
        layer: Any = node.layer
        kind, layers = type(inner(layer)).__name__, tf.keras.layers
        if kind == "Concatenate" and (len(given) == 1 or joins_channels(layer, node)):
            return np.concatenate(given)
        if concatenates(node):
            return np.concatenate(given)
        if kind in MERGES or kind == "Concatenate":
            return self._merged(given, layer.name)
        if kind == "Flatten":
            return np.tile(given[0], _width(shape) // max(1, len(given[0])))
        if is_plain(node):
            self._note(layer, given[0], given[0], 0)
            return given[0]
        if kind == "TFOpLambda":
            return self._merged(given, layer.name)
        if kind in ("Attention", "AdditiveAttention"):
            own = self._merged([given[0], given[-1]], layer.name)
            self._note(layer, own, given[1], 0, products=products_of(node))
            return given[1]
        positions = positions_of(node)
        if isinstance(inner(layer), layers.DepthwiseConv1D | layers.DepthwiseConv2D):
            own = np.repeat(given[0], inner(layer).depth_multiplier)
        elif is_producer(layer):
            return self._produced(node, given[0], shape)
        else:  # A normalization or PReLU.
            own, positions = given[0], 0
        self._note(layer, given[0], own, positions)
        if kind == "BatchNormalization":
            before = self.found.get(node.keras_inputs[0].node.layer.name)
            if before is not None and before.produces:
                self.found[before.layer.name] = replace(before, normalizer=layer)
        return own

    def _produced(self, node: Any, given: np.ndarray, shape: Any) -> np.ndarray:
        """The labels of new channels."""
        layer: Any = node.layer
        known = self.found.get(layer.name)
        # Two directions that stand side by side have the same units, so that they can be removed.
        both = isinstance(layer, tf.keras.layers.Bidirectional) and layer.merge_mode == "concat"
        own = known.outputs if known else self.new(_width(shape) // (2 if both else 1))
        if mixes_outputs(layer):
            self.fix(own, layer.name, "its softmax mixes channels")
        self._tie_groups(given, own, groups_of(inner(layer)))
        self._note(layer, given, own, positions_of(node), products=products_of(node))
        if isinstance(layer, tf.keras.layers.MultiHeadAttention) and known is None:
            heads = self.new(layer.get_config()["num_heads"])
            self.found[layer.name] = replace(self.found[layer.name], heads=heads)
        return np.tile(own, 2) if both else own

    def _tie_groups(self, given: np.ndarray, own: np.ndarray, groups: int) -> None:
        """A convolution's groups stay alike: the same channels of each go, of its inputs and of its
        outputs, or, of many small groups, whole ones."""
        if groups == 1:
            return
        inputs, outputs = given.reshape(groups, -1), own.reshape(groups, -1)
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
        known = self.found.get(layer.name)
        if known is not None:  # A layer that is called twice has the same weights both times.
            self.unite(known.inputs, inputs)
            self.unite(known.outputs, outputs)
            inputs, outputs, positions = known.inputs, known.outputs, known.positions + positions
            products += known.products
        heads = known.heads if known is not None else None
        self.found[layer.name] = LayerChannels(
            layer, inputs, outputs, positions, rows, heads=heads, products=products
        )

    def _count(self, node: Any) -> None:
        """A layer that cannot be followed keeps its size, and its part of what the model costs."""
        layer, known = node.layer, self.found.get(node.layer.name)
        times, products = positions_of(node), products_of(node)
        if known is not None:
            times, products = times + known.positions, products + known.products
        nothing, rows = np.zeros(0, int), [dict[int, str]() for _ in layer.weights]
        self.found[layer.name] = LayerChannels(
            layer, nothing, nothing, times, rows, products=products
        )

    def _merged(self, given: list[np.ndarray], name: str) -> np.ndarray:
        width = max(len(labels) for labels in given)
        full = [labels for labels in given if len(labels) == width]
        for labels in given:
            if len(labels) < width:  # One channel that is spread over all.
                self.fix(labels, name, "it spreads one channel over several")
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
            for name, c in self.found.items()
        }
        return Dependencies(layers, fixed, self.reasons)


def _width(shape: Any) -> int:
    return int(shape[-1]) if len(shape) > 1 and shape[-1] is not None else 1


_OVER_CHANNELS = ("LayerNormalization", "GroupNormalization", "UnitNormalization")


def check_shrunk(
    model: tf.keras.Model,
    smaller: tf.keras.Model,
    found: Dependencies,
    kept: np.ndarray,
    samples: Any,
) -> None:
    """Raise EdgesparseError where the smaller model does not answer as `model` would with zeros in
    place of the atoms that are gone. Not where a normalization loses some of the channels that it
    takes its mean over: zeros count in that."""
    for c in found.layers.values():
        whole = all(mask.all() for mask in c.masks(kept).values())
        if type(c.layer).__name__ in _OVER_CHANNELS and not whole:
            return
    weights = model.get_weights()
    for c in found.layers.values():
        masks, own = c.masks(kept), c.layer.get_weights()
        for values, axes in zip(own, c.axes, strict=True):
            for axis, name in axes.items():
                np.moveaxis(values, axis, 0)[~masks[name]] = 0
        c.layer.set_weights(own)
    require_equal("removing channels", model, smaller, samples)
    model.set_weights(weights)
