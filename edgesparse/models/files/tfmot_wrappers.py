"""Models that were saved with tfmot's pruning or quantization wrappers around their layers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.models.files.equivalence import require_equal

_PRUNED = "PruneLowMagnitude"
_QUANTIZED = ("QuantizeWrapper", "QuantizeWrapperV2")
_QUANTIZER = "QuantizeLayer"
_GROUPS = {"QuantizeWrapper": "quantize_wrapper", "QuantizeWrapperV2": "quantize_wrapper_v2"}
QUANTIZED_NOTE = (
    "removed quantization wrappers, kept the weights; add them again with "
    "'quantize: {scheme: int8, qat: true}'"
)


def scopes() -> Iterator[AbstractContextManager[Any]]:
    """Yield scopes in which Keras knows tfmot's layers. tfmot takes a second to import, so it is
    imported only when a pipeline is about to need it anyway."""
    from edgesparse.models.files.tfmot import tfmot

    yield tfmot.sparsity.keras.prune_scope()
    yield tfmot.quantization.keras.quantize_scope()


def unwrap(model: tf.keras.Model) -> tuple[tf.keras.Model, list[str]]:
    """Return the model without wrappers, with its weights and zeros, and notes about it."""
    kinds = {type(layer).__name__ for layer in model._flatten_layers()}
    notes = []
    if _PRUNED in kinds:
        from edgesparse.models.files.tfmot import tfmot

        for layer in model._flatten_layers():
            if type(layer).__name__ == _PRUNED:
                for kernel, mask, _ in layer.pruning_vars:
                    kernel.assign(kernel * mask)
        stripped = tfmot.sparsity.keras.strip_pruning(model)
        samples = _samples(model)
        if samples is not None:
            require_equal("removing pruning wrappers", model, stripped, samples)
        model = stripped
        notes.append("removed pruning wrappers, kept the zeros")
    if kinds & {*_QUANTIZED, _QUANTIZER}:
        plain = _without_wrappers(model)
        for new, old in zip(plain.layers, model.layers, strict=True):
            by_name = {_short_name(weight): weight for weight in old.weights}
            new.set_weights([by_name[_short_name(weight)].numpy() for weight in new.weights])
        model = plain
        notes.append(QUANTIZED_NOTE)
    return model, notes


def _samples(model: tf.keras.Model) -> list[tf.Tensor] | None:
    """Return random inputs; None where a dimension is dynamic."""
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if any(size is None for shape in shapes for size in shape):
        return None
    random = np.random.default_rng(0)
    return [
        tf.cast(random.integers(0, 2, (2, *shape)), tensor.dtype)
        if tensor.dtype.is_integer
        else tf.cast(random.random((2, *shape)), tensor.dtype)
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]


def is_quantized(path: Path) -> bool:
    """Return whether a .keras file has tfmot's quantization wrappers, which Keras cannot load."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return b"QuantizeWrapper" in archive.read("config.json")


def read_quantized(path: Path, custom_objects: Mapping[str, Any]) -> tf.keras.Model:
    """Load a file with quantization wrappers without them, by hand: Keras counts the ranges of the
    first wrapper twice and fails."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = BytesIO(archive.read("model.weights.h5"))
    with tf.keras.utils.custom_object_scope(dict(custom_objects)):
        model = tf.keras.utils.deserialize_keras_object(config)
    plain = _without_wrappers(model)
    counts: dict[str, int] = {}
    with h5py.File(weights, "r") as file:
        groups = file.get("layers") or file["_layer_checkpoint_dependencies"]
        for layer, wrapper in zip(plain.layers, model.layers, strict=True):
            name = _GROUPS.get(type(wrapper).__name__, "")
            number = counts.get(name, 0)
            counts[name] = number + 1
            if layer.weights:
                group = groups[f"{name}_{number}" if number else name]
                layer.set_weights(_inner_weights(group, len(layer.weights)))
    return plain


def _inner_weights(group: Any, count: int) -> list[Any]:
    """Return the weights of a wrapped layer; its kernel is the first of the wrapper's variables."""
    inner = group["layer"]["vars"] if "layer" in group else {}
    weights = [inner[str(i)][()] for i in range(len(inner))]
    if len(weights) < count:
        weights.insert(0, group["vars"]["0"][()])
    return weights


def _without_wrappers(model: tf.keras.Model) -> tf.keras.Model:
    """Clone the model without fake quantization, with newly initialized weights."""

    def inner(layer: Any) -> Any:
        kind = type(layer).__name__
        if kind == _QUANTIZER:
            return tf.keras.layers.Activation("linear", name=layer.name)
        if kind not in _QUANTIZED:
            return layer.__class__.from_config(layer.get_config())
        config = layer.layer.get_config()
        # tfmot replaces the activation by one with ranges, which contains the original.
        activation = getattr(getattr(layer.layer, "activation", None), "activation", None)
        if activation is not None:
            config["activation"] = tf.keras.activations.serialize(activation)
        return layer.layer.__class__.from_config(config)

    return tf.keras.models.clone_model(model, clone_function=inner)


def _short_name(weight: Any) -> str:
    return str(weight.name).split("/")[-1]
