"""Quantization-aware training that keeps zeros (pruning-preserving QAT, PQAT).

Fake-quantization after Jacob et al. 2017 (arXiv 1712.05877), with TensorFlow's toolkit; its
prune-preserving scheme multiplies each kernel by the mask of its zeros in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_registry,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
    model_transformer,
)
from tf_keras.src.saving.serialization_lib import SafeModeScope

from edgesparse.data import Dataset, representative
from edgesparse.methods.masks import HoldMasks, Masked
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import History, compared, fit, recipe_of
from edgesparse.models.files.equivalence import require_equal, settle_normalizations
from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.spec.pipeline import Train

# A kernel with fewer zeros than this was not pruned; masking it would only slow training down.
MIN_SPARSITY = 0.05
_ACTIVATIONS = ("gelu", "linear", "relu", "sigmoid", "silu", "softmax", "swish", "tanh")
"""Those that the toolkit's layers may have."""
_CALIBRATED, _BATCH = 128, 32
"""Calibration samples for the ranges to begin with, and at a time."""
NOTHING_KNOWN = "no layer of it can have fake-quantization"


@dataclass(frozen=True)
class Prepared:
    """A model with fake-quantization around its layers; `left` are the layers that have none, as
    "name (Kind)": they stay float in training, and get their ranges from calibration."""

    model: tf.keras.Model
    left: tuple[str, ...]


def prepare(model: tf.keras.Model) -> Prepared:
    """Put fake-quantization around every layer that the toolkit knows.

    Raises:
        EdgesparseError: it knows none of the model's layers.
    """
    unknown = [x for x in model.layers if not _is_known(x) or _is_masked(x)]
    # A batch normalization is known only where it is folded into a convolution; whether all are,
    # the toolkit finds out when it is asked.
    normalizations = [n for n in unknown if isinstance(n, tf.keras.layers.BatchNormalization)]
    others = [layer for layer in unknown if layer not in normalizations]
    problem: Exception | None = None
    sparse = any(_is_sparse(k.variable) for k in kernels(model).values())
    choices = [others, unknown] if normalizations else [others]
    # Some layers the toolkit knows alone, and not beside others: each is left out in turn.
    suspects = [x for x in model.layers if x not in unknown and getattr(x, "activation", None)]
    choices += [[*unknown, suspect] for suspect in suspects]
    for left in choices:
        if len(left) == len(model.layers):
            break
        names = {layer.name for layer in left}
        # The toolkit's own way to keep zeros knows fewer layers, and forgets those of convolutions
        # with groups: zeros are held from outside, too.
        for own in (True, False) if sparse and not left else (False,):
            try:
                return Prepared(_applied(model, names, own), _named(left))
            except (ValueError, RuntimeError, TypeError) as error:
                problem = problem or error
    reason = cause_of(problem) if problem else NOTHING_KNOWN
    raise EdgesparseError(
        f"quantization-aware training does not take this model: {reason}; leave out 'qat: true'"
    ) from problem


def foreseen(model: tf.keras.Model) -> tuple[tuple[str, ...], str | None]:
    """The layers that will not be quantization-aware, and why none can be, where that is so. A
    batch normalization may be among those in the end; that is found out when it is tried."""
    normalization = tf.keras.layers.BatchNormalization
    unknown = [x for x in model.layers if not _is_known(x) or _is_masked(x)]
    left = [layer for layer in unknown if not isinstance(layer, normalization)]
    inputs = sum(isinstance(layer, tf.keras.layers.InputLayer) for layer in model.layers)
    if len(left) == len(model.layers) - inputs:
        return (), NOTHING_KNOWN
    return _named(left), None


def _is_known(layer: Any) -> bool:
    layers = tf.keras.layers
    if isinstance(layer, layers.InputLayer):
        return True
    activation = getattr(layer, "activation", None)
    if activation is not None and getattr(activation, "__name__", "") not in _ACTIVATIONS:
        return False
    return bool(default_8bit_quantize_registry.Default8BitQuantizeRegistry().supports(layer))


def _is_masked(layer: Any) -> bool:
    """Whether it is called with a mask that it does not take: the toolkit's wrapper hands it on."""
    given = [tensor for node in layer.inbound_nodes for tensor in node.keras_inputs]
    masked = any(getattr(tensor, "_keras_mask", None) is not None for tensor in given)
    return masked and not getattr(layer, "_expects_mask_arg", False)


def _named(layers: Sequence[Any]) -> tuple[str, ...]:
    return tuple(f"{layer.name} ({type(layer).__name__})" for layer in layers)


def _applied(model: tf.keras.Model, left: Collection[str], sparse: bool) -> tf.keras.Model:
    """`sparse`: by the toolkit's scheme that keeps zeros."""
    keras, custom_object_scope = tfmot.quantization.keras, tf.keras.utils.custom_object_scope

    def annotated(layer: Any) -> Any:
        if layer.name in left or isinstance(layer, tf.keras.layers.InputLayer):
            return layer
        return keras.quantize_annotate_layer(layer)

    # The toolkit makes layers anew from their configurations: also a Lambda's, which was ours or
    # the user's before.
    own = {type(part).__name__: type(part) for part in model._flatten_layers()}
    scopes = (keras.quantize_scope(), SafeModeScope(safe_mode=False), custom_object_scope(own))
    transformer = model_transformer.ModelTransformer
    ordered = _in_order(transformer._get_layers)
    with scopes[0], scopes[1], scopes[2], _replaced(transformer, _get_layers=ordered):
        whole = tf.keras.models.clone_model(model, clone_function=annotated)
        if sparse:
            scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
            applied = keras.quantize_apply(whole, scheme)
        else:
            applied = keras.quantize_apply(whole)
    settle_normalizations(applied)
    return applied


@contextmanager
def _replaced(owner: Any, **functions: Callable[..., Any]) -> Iterator[None]:
    """Within, the toolkit's module or class has other functions."""
    own = {name: getattr(owner, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(owner, name, function)
        yield
    finally:
        for name, function in own.items():
            setattr(owner, name, function)


def _in_order(find: Callable[..., Any]) -> Callable[..., Any]:
    """The toolkit finds a layer's inputs in the order in which the model lists its layers, and
    connects them so: a concatenation of [input, layer] would become one of [layer, input]."""

    def ordered(self: Any, names: Sequence[str]) -> Any:
        layers = find(self, names)
        if not self._is_functional_model(self.model):
            return layers
        return sorted(layers, key=lambda layer: list(names).index(layer["config"]["name"]))

    return ordered


def _unchanged(inputs: Any, *_: Any, **__: Any) -> Any:
    return inputs


def unquantized(
    observe: Callable[..., Any] = _unchanged, weights: Callable[..., Any] = _unchanged
) -> Any:
    """A context in which fake-quantization passes values on; `observe` is called in place of what
    quantizes activations, `weights` of what quantizes weights, with a tensor and the variables of
    its range."""
    return _replaced(
        quant_ops,
        LastValueQuantize=weights,
        MovingAvgQuantize=observe,
        AllValuesQuantize=observe,
    )


def check(
    prepared: tf.keras.Model, model: tf.keras.Model, samples: Any, *, back: bool = False
) -> None:
    """Raise EdgesparseError where the two differ by more than by fake-quantization.

    Args:
        back: `model` is what became of `prepared`.
    """
    with unquantized():
        if back:
            require_equal("taking fake-quantization off", prepared, model, samples)
        else:
            require_equal("preparing quantization-aware training", model, prepared, samples)


def calibrate(prepared: tf.keras.Model, samples: Sequence[np.ndarray]) -> None:
    """Begin with the ranges that activations have on calibration samples.

    The toolkit's begin at -6 to 6 and move by a thousandth of the way in a step.
    """
    seen = set()

    def observe(inputs: Any, low: Any, high: Any, symmetric: bool = False, **named: Any) -> Any:
        if named.get("per_channel"):
            return inputs
        limits = [tf.minimum(tf.reduce_min(inputs), 0.0), tf.maximum(tf.reduce_max(inputs), 0.0)]
        if symmetric:
            limits = [-tf.maximum(-limits[0], limits[1]), tf.maximum(-limits[0], limits[1])]
        if low.ref() in seen:
            limits = [tf.minimum(limits[0], low), tf.maximum(limits[1], high)]
        seen.add(low.ref())
        low.assign(limits[0])
        high.assign(limits[1])
        return inputs

    quantize = quant_ops.LastValueQuantize

    def weights(inputs: Any, low: Any, high: Any, **named: Any) -> Any:
        quantize(inputs, low, high, **{**named, "is_training": True})
        return inputs

    with unquantized(observe, weights):
        for start in range(0, len(samples[0]), _BATCH):
            some = [values[start : start + _BATCH] for values in samples]
            prepared(some if len(some) > 1 else some[0], training=False)


def float_twin(prepared: Prepared, model: tf.keras.Model) -> tf.keras.Model | None:
    """`model` with the weights that were trained under fake-quantization, and none of that in it;
    None where the toolkit made other layers of its layers.

    A model that is prepared in part is converted so: the converter takes ranges from
    fake-quantization or from calibration, and where both are in one model the tensors between
    them get poor ones (attention: 15 % of the output's range off, instead of 1 %).
    """
    trained = {layer.name: layer for layer in prepared.model.layers}
    pairs = []
    for layer in model.layers:
        twin = trained.get(layer.name) or trained.get(f"quant_{layer.name}")
        if layer.weights and twin is None:
            return None
        same = type(twin) is type(layer)
        # A wrapper has the layer's weights among its own, by the same names.
        theirs = {_short(w): w for w in twin.weights} if twin is not None and not same else {}
        for place, weight in enumerate(layer.weights):
            found = twin.weights[place] if same and twin is not None else theirs.get(_short(weight))
            if found is None or found.shape != weight.shape:
                return None
            pairs.append((weight, found))
    for weight, found in pairs:
        weight.assign(found)
    return model


def _short(weight: Any) -> str:
    return str(weight.name).split("/")[-1]


def _is_sparse(variable: Any) -> bool:
    return bool(np.mean(variable.numpy() == 0) > MIN_SPARSITY)


def quantize_aware(
    model: tf.keras.Model, dataset: Dataset, train: Train, progress: Progress
) -> tuple[Prepared, History]:
    """Fine-tune `model` under fake-quantization.

    Raises:
        EdgesparseError: the toolkit takes none of its layers, or changes what one of them gives.
    """
    prepared = prepare(model)
    given = representative(dataset, _CALIBRATED)
    samples = [given[name] for name in recipe_of(model, dataset, train).inputs]
    check(prepared.model, model, compared(model, dataset))
    calibrate(prepared.model, samples)
    held = [
        Masked(kernel.variable)
        for kernel in kernels(prepared.model).values()
        if _is_sparse(kernel.variable)
    ]
    for one in held:
        one.keep_zeros()
    callbacks = [HoldMasks(held)] if held else []
    history = fit(prepared.model, dataset, train, progress, callbacks=callbacks)
    for one in held:
        one.apply()
    return prepared, history
