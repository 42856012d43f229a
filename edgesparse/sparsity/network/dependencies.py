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

from edgesparse.sparsity.network import probing

_PLAIN = (
    "Activation", "AveragePooling1D", "AveragePooling2D", "Cropping1D", "Cropping2D", "Dropout",
    "ELU", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "LeakyReLU", "MaxPooling1D", "MaxPooling2D", "ReLU",
    "SpatialDropout1D", "SpatialDropout2D", "ThresholdedReLU", "UpSampling1D", "UpSampling2D",
    "ZeroPadding1D", "ZeroPadding2D",
)  # fmt: skip
"""Layers without weights that treat every channel alike."""
_MERGES = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
_OPERATIONS = (
    "__operators__.add", "math.add", "math.divide", "math.multiply", "math.sigmoid",
    "math.subtract", "math.tanh", "math.truediv", "nn.elu", "nn.gelu", "nn.leaky_relu", "nn.relu",
    "nn.relu6", "nn.silu", "nn.swish",
)  # fmt: skip
"""TensorFlow functions called on Keras tensors that treat every channel alike."""
_MIXING_ACTIVATIONS = ("softmax", "log_softmax")


@dataclass(frozen=True)
class LayerChannels:
    """One layer's channels, each as the atom it belongs to.

    `inputs` int [channels of its input], `outputs` int [channels of its output]; `positions` is how
    many times its kernel is applied to one sample.
    """

    layer: Any
    inputs: np.ndarray
    outputs: np.ndarray
    positions: int
    rows: list[dict[int, str]] | None = None
    """The axes of a layer that nobody knows, found by asking it."""
    normalizer: Any = None
    """The batch normalization right behind it, which a converter folds into its kernel."""

    @property
    def produces(self) -> bool:
        """Whether its output channels are its own to choose."""
        return isinstance(self.layer, _producers())

    @property
    def axes(self) -> list[dict[int, str]]:
        """For each of its weights, which axes run along which channels: "in", "out", "middle",
        between the halves of a separable convolution, or "gates", a recurrent layer's units once
        for each gate."""
        if self.rows is not None:
            return self.rows
        layers, weights = tf.keras.layers, self.layer.weights
        kernels: list[dict[int, str]] = []
        if isinstance(self.layer, layers.SeparableConv2D):
            kernels = [{2: "in"}, {2: "middle", 3: "out"}]
        elif isinstance(self.layer, layers.DepthwiseConv2D):
            kernels = [{2: "in"}]
        elif isinstance(self.layer, layers.Conv2DTranspose):
            kernels = [{2: "out", 3: "in"}]
        elif isinstance(self.layer, layers.Conv2D):
            kernels = [{2: "in", 3: "out"}]
        elif isinstance(self.layer, layers.Conv1D):
            kernels = [{1: "in", 2: "out"}]
        elif isinstance(self.layer, layers.Dense):
            kernels = [{0: "in", 1: "out"}]
        elif isinstance(self.layer, layers.Embedding):
            kernels = [{1: "out"}]
        elif isinstance(self.layer, _recurrent()):
            biases = [{len(w.shape) - 1: "gates"} for w in weights[2:]]
            return [{0: "in", 1: "gates"}, {0: "out", 1: "gates"}, *biases]
        # What follows runs along outputs: a bias, a batch normalization's statistics.
        return [*kernels, *({len(w.shape) - 1: "out"} for w in weights[len(kernels) :])]

    def masks(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Which channels stay, by the names of `axes`; `kept` bool [atoms]."""
        inputs = kept[self.inputs]
        masks = {"in": inputs, "out": kept[self.outputs]}
        if isinstance(self.layer, tf.keras.layers.SeparableConv2D):
            masks["middle"] = np.repeat(inputs, self.layer.depth_multiplier)
        if isinstance(self.layer, _recurrent()):
            gates = self.layer.weights[0].shape[-1] // len(self.outputs)
            masks["gates"] = np.tile(masks["out"], gates)
        return masks


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


def _producers() -> Any:
    layers = tf.keras.layers
    convolutions = (layers.Conv1D, layers.Conv2D, layers.SeparableConv2D, layers.Conv2DTranspose)
    return (*convolutions, layers.Dense, layers.Embedding, *_recurrent())


def _recurrent() -> Any:
    layers = tf.keras.layers
    return (layers.GRU, layers.LSTM, layers.SimpleRNN)


def _width(shape: Any) -> int:
    return int(shape[-1]) if len(shape) > 1 and shape[-1] is not None else 1


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
        why = _not_followed(node, given, outputs)
        if why and len(outputs) == 1 and len(given) == 1 and _is_own(node.layer):
            if probing.treats_channels_alike(node):
                self._note(node.layer, given[0], given[0], 0)
                return [given[0]]
            rows = probing.input_rows(node) if len(given[0]) > 1 else None
            if rows is not None:
                own = self.new(_width(outputs[0].shape))
                self.fix(own, node.layer.name, why)
                positions = int(np.prod(outputs[0].shape[1:-1]))
                self._note(node.layer, given[0], own, positions, rows)
                return [own]
        if why:
            for labels in given:
                self.fix(labels, node.layer.name, why)
            results = [self.new(_width(t.shape)) for t in outputs]
            for labels in results:
                self.fix(labels)
            return results
        layer: Any = node.layer
        kind, shape = type(layer).__name__, outputs[0].shape
        layers = tf.keras.layers
        if kind in _MERGES or (kind == "Concatenate" and len(given) > 1 and not _last(layer, node)):
            return [self._merged(given, layer.name)]
        if kind == "TFOpLambda":
            return [self._merged(given, layer.name)]
        if kind == "Concatenate":
            return [np.concatenate(given)]
        if kind == "Flatten":
            return [np.tile(given[0], _width(shape) // max(1, len(given[0])))]
        if kind in _PLAIN or kind == "Reshape":
            self._note(layer, given[0], given[0], 0)
            return [given[0]]
        positions = int(np.prod(shape[1:-1]))
        if isinstance(layer, (layers.Conv2DTranspose, *_recurrent())):
            positions = int(np.prod(node.keras_inputs[0].shape[1:-1]))
        if isinstance(layer, layers.DepthwiseConv2D):
            own = np.repeat(given[0], layer.depth_multiplier)
        elif isinstance(layer, _producers()):
            known = self.found.get(layer.name)
            own = known.outputs if known else self.new(_width(shape))
            if getattr(getattr(layer, "activation", None), "__name__", "") in _MIXING_ACTIVATIONS:
                self.fix(own, layer.name, "its softmax mixes channels")
        else:  # A normalization or PReLU.
            own, positions = given[0], 0
        self._note(layer, given[0], own, positions)
        if kind == "BatchNormalization":
            before = self.found.get(node.keras_inputs[0].node.layer.name)
            if before is not None and before.produces:
                self.found[before.layer.name] = replace(before, normalizer=layer)
        return [own]

    def _note(
        self,
        layer: Any,
        inputs: np.ndarray,
        outputs: np.ndarray,
        positions: int,
        rows: list[dict[int, str]] | None = None,
    ) -> None:
        known = self.found.get(layer.name)
        if known is not None:  # A layer that is called twice has the same weights both times.
            self.unite(known.inputs, inputs)
            self.unite(known.outputs, outputs)
            inputs, outputs, positions = known.inputs, known.outputs, known.positions + positions
        self.found[layer.name] = LayerChannels(layer, inputs, outputs, positions, rows)

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
            name: replace(c, inputs=atoms[c.inputs], outputs=atoms[c.outputs])
            for name, c in self.found.items()
        }
        return Dependencies(layers, fixed, self.reasons)


def _is_own(layer: Any) -> bool:
    """Whether it is a user's: a class of theirs, or a function in a Lambda."""
    kind = type(layer)
    return kind.__name__ == "Lambda" or not kind.__module__.startswith(("tf_keras", "keras"))


def _last(layer: Any, node: Any) -> bool:
    rank = len(node.keras_inputs[0].shape)
    axis = getattr(layer, "axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    return axis in (-1, rank - 1)


def _not_followed(node: Any, given: list[np.ndarray], outputs: list[Any]) -> str:
    """Why the channels behind a layer cannot be told from those before it; empty where they can."""
    layer, kind, layers = node.layer, type(node.layer).__name__, tf.keras.layers
    if len(outputs) != 1 or not given:
        return f"{kind} has several outputs"
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return "its channels come first"
    if kind == "Reshape":
        same = len(given[0]) == _width(outputs[0].shape) and len(outputs[0].shape) > 1
        return "" if same else "Reshape moves channels among other dimensions"
    if kind == "Activation" and layer.get_config()["activation"] in _MIXING_ACTIVATIONS:
        return "its softmax mixes channels"
    if kind in ("BatchNormalization", "LayerNormalization"):
        return "" if _last(layer, node) else "it normalizes another dimension than channels"
    if kind == "PReLU":
        return "" if layer.alpha.shape[-1] == len(given[0]) else "its slope is shared by channels"
    if kind == "TFOpLambda":
        return _operation_not_followed(node)
    if kind in (*_PLAIN, *_MERGES, "Concatenate", "Flatten", "Dense", "Embedding"):
        return ""
    if type(layer) in _recurrent():
        return "its state is given to it" if len(given) > 1 else ""
    if type(layer) in (layers.Conv1D, layers.Conv2D, layers.Conv2DTranspose):
        return "its convolution has groups" if layer.groups > 1 else ""
    if type(layer) in (layers.DepthwiseConv2D, layers.SeparableConv2D):
        return ""
    return f"{kind} may mix channels"


def _operation_not_followed(node: Any) -> str:
    symbol = node.layer.get_config()["function"]
    if symbol not in _OPERATIONS:
        return f"tf.{symbol} may mix channels"
    arguments = tf.nest.flatten((node.call_args, node.call_kwargs))
    plain = (int, float, str, bool, type(None))
    if all(isinstance(a, plain) or tf.keras.backend.is_keras_tensor(a) for a in arguments):
        return ""
    return f"tf.{symbol} takes a constant for each channel"
