"""Quantization-aware training that preserves zeros (pruning-preserving QAT, PQAT).

Fake-quantization as in Jacob et al. 2017 (arXiv 1712.05877), with TensorFlow's toolkit; its
prune-preserving scheme multiplies each kernel by the mask of its zeros at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.saving.serialization_lib import SafeModeScope

from edgesparse.data import Dataset, representative
from edgesparse.methods.masks import HoldMasks, Masked
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import History, comparison_samples, fit, recipe_of
from edgesparse.models.files.equivalence import finalize_normalizations, require_equal
from edgesparse.models.files.tfmot import (
    default_8bit_quantize_registry,
    model_transformer,
    quant_ops,
    tfmot,
)
from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.spec.pipeline import Train

# A kernel with fewer zeros than this was not pruned; masking it would only slow training down.
MIN_SPARSITY = 0.05
_ACTIVATIONS = ("gelu", "linear", "relu", "sigmoid", "silu", "softmax", "swish", "tanh")
"""Activation functions that the toolkit supports."""
_CALIBRATED, _BATCH = 128, 32
"""Calibration samples for initial ranges, and their batch size."""
NOTHING_SUPPORTED = "the toolkit supports none of its layers"


@dataclass(frozen=True)
class Prepared:
    """A model with fake-quantization; `left` are layers without it, as "name (Kind)": they stay
    float in training, and get their ranges from calibration."""

    model: tf.keras.Model
    left: tuple[str, ...]


def prepare(model: tf.keras.Model) -> Prepared:
    """Add fake-quantization to every layer that the toolkit supports.

    Raises:
        EdgesparseError: it supports none of the model's layers.
    """
    unknown = [x for x in model.layers if not _is_supported(x) or _is_masked(x)]
    # A batch normalization is supported only where the toolkit folds it into a convolution, which
    # shows when it is applied.
    normalizations = [n for n in unknown if isinstance(n, tf.keras.layers.BatchNormalization)]
    others = [layer for layer in unknown if layer not in normalizations]
    problem: Exception | None = None
    sparse = any(_is_sparse(k.variable) for k in kernels(model).values())
    choices = [others, unknown] if normalizations else [others]
    # Some layers are supported alone, but not beside others: each is left out in turn.
    suspects = [x for x in model.layers if x not in unknown and getattr(x, "activation", None)]
    choices += [[*unknown, suspect] for suspect in suspects]
    for left in choices:
        if len(left) == len(model.layers):
            break
        names = {layer.name for layer in left}
        # The toolkit's prune-preserving scheme supports fewer layers, and loses the zeros of
        # grouped convolutions: masks are applied by HoldMasks, too.
        for prune_preserving in (True, False) if sparse and not left else (False,):
            try:
                return Prepared(_apply(model, names, prune_preserving), _labels(left))
            except (ValueError, RuntimeError, TypeError) as error:
                problem = problem or error
    reason = cause_of(problem) if problem else NOTHING_SUPPORTED
    raise EdgesparseError(
        f"quantization-aware training does not support this model: {reason}; remove 'qat: true'"
    ) from problem


def unsupported_layers(model: tf.keras.Model) -> tuple[tuple[str, ...], str | None]:
    """Return the layers without fake-quantization, and the reason where no layer can have it, else
    None. A batch normalization can be added to these when the toolkit is applied."""
    normalization = tf.keras.layers.BatchNormalization
    unknown = [x for x in model.layers if not _is_supported(x) or _is_masked(x)]
    left = [layer for layer in unknown if not isinstance(layer, normalization)]
    inputs = sum(isinstance(layer, tf.keras.layers.InputLayer) for layer in model.layers)
    if len(left) == len(model.layers) - inputs:
        return (), NOTHING_SUPPORTED
    return _labels(left), None


def _is_supported(layer: Any) -> bool:
    layers = tf.keras.layers
    if isinstance(layer, layers.InputLayer):
        return True
    activation = getattr(layer, "activation", None)
    if activation is not None and getattr(activation, "__name__", "") not in _ACTIVATIONS:
        return False
    return bool(default_8bit_quantize_registry.Default8BitQuantizeRegistry().supports(layer))


def _is_masked(layer: Any) -> bool:
    """Return True for a layer whose inputs have a mask that it does not take: the toolkit's wrapper
    would pass it on."""
    inputs = [tensor for node in layer.inbound_nodes for tensor in node.keras_inputs]
    masked = any(getattr(tensor, "_keras_mask", None) is not None for tensor in inputs)
    return masked and not getattr(layer, "_expects_mask_arg", False)


def _labels(layers: Sequence[Any]) -> tuple[str, ...]:
    return tuple(f"{layer.name} ({type(layer).__name__})" for layer in layers)


def _apply(model: tf.keras.Model, left: Collection[str], sparse: bool) -> tf.keras.Model:
    """Apply the toolkit, with its prune-preserving scheme if `sparse`."""
    keras, custom_object_scope = tfmot.quantization.keras, tf.keras.utils.custom_object_scope

    def annotated(layer: Any) -> Any:
        if layer.name in left or isinstance(layer, tf.keras.layers.InputLayer):
            return layer
        return keras.quantize_annotate_layer(layer)

    # The toolkit rebuilds layers from their configurations, Lambda layers too, whose code is
    # trusted already.
    custom_objects = {type(part).__name__: type(part) for part in model._flatten_layers()}
    scopes = (
        keras.quantize_scope(),
        SafeModeScope(safe_mode=False),
        custom_object_scope(custom_objects),
    )
    transformer = model_transformer.ModelTransformer
    ordered = _in_order(transformer._get_layers)
    with scopes[0], scopes[1], scopes[2], _replaced(transformer, _get_layers=ordered):
        whole = tf.keras.models.clone_model(model, clone_function=annotated)
        if sparse:
            scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
            applied = keras.quantize_apply(whole, scheme)
        else:
            applied = keras.quantize_apply(whole)
    finalize_normalizations(applied)
    return applied


@contextmanager
def _replaced(owner: Any, **functions: Callable[..., Any]) -> Iterator[None]:
    """Replace functions of the toolkit's module or class within the context."""
    originals = {name: getattr(owner, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(owner, name, function)
        yield
    finally:
        for name, function in originals.items():
            setattr(owner, name, function)


def _in_order(find: Callable[..., Any]) -> Callable[..., Any]:
    """Fix the order of a layer's inputs: the toolkit connects them in the order of the model's
    layers, so that a concatenation of [input, layer] would become [layer, input]."""

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
    """Return a context in which fake-quantization passes values on.

    Args:
        observe: called in place of the quantizers of activations, with a tensor and the variables
            of its range.
        weights: called in place of the quantizers of weights.
    """
    return _replaced(
        quant_ops,
        LastValueQuantize=weights,
        MovingAvgQuantize=observe,
        AllValuesQuantize=observe,
    )


def check(
    prepared: tf.keras.Model, model: tf.keras.Model, samples: Any, *, back: bool = False
) -> None:
    """Raise EdgesparseError where outputs differ by more than fake-quantization.

    Args:
        prepared: the model with fake-quantization.
        model: the model before it was added, or after it was removed.
        samples: inputs in the model's form.
        back: True for after.
    """
    with unquantized():
        if back:
            require_equal("removing fake-quantization", prepared, model, samples)
        else:
            require_equal("preparing quantization-aware training", model, prepared, samples)


def calibrate(prepared: tf.keras.Model, samples: Sequence[np.ndarray]) -> None:
    """Initialize ranges from activations on calibration samples.

    The toolkit's initial range is -6 to 6 and moves by a thousandth of the difference per step.
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
    """Return `model` with the weights trained under fake-quantization, but without it; None where
    the toolkit replaced layers.

    Partly prepared models are converted this way: the converter takes ranges from
    fake-quantization or from calibration, and where a model has both, the tensors between get poor
    ones (attention: an output error of 15 % of the range, instead of 1 %).
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
        for index, weight in enumerate(layer.weights):
            trained_weight = (
                twin.weights[index] if same and twin is not None else theirs.get(_short(weight))
            )
            if trained_weight is None or trained_weight.shape != weight.shape:
                return None
            pairs.append((weight, trained_weight))
    for weight, trained_weight in pairs:
        weight.assign(trained_weight)
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
        EdgesparseError: the toolkit supports none of its layers, or changes a layer's outputs.
    """
    prepared = prepare(model)
    calibration = representative(dataset, _CALIBRATED)
    samples = [calibration[name] for name in recipe_of(model, dataset, train).inputs]
    check(prepared.model, model, comparison_samples(model, dataset))
    calibrate(prepared.model, samples)
    held = [
        Masked(kernel) for kernel in kernels(prepared.model).values() if _is_sparse(kernel.variable)
    ]
    for masked in held:
        masked.keep_zeros()
    callbacks = [HoldMasks(held)] if held else []
    history = fit(prepared.model, dataset, train, progress, callbacks=callbacks)
    for masked in held:
        masked.apply()
    return prepared, history
