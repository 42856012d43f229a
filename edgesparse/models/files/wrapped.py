"""Models that were saved with the pruning toolkit's wrappers around their layers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import tensorflow as tf

_PRUNED = "PruneLowMagnitude"
_QUANTIZED = ("QuantizeWrapper", "QuantizeWrapperV2")
_QUANTIZER = "QuantizeLayer"
_GROUPS = {"QuantizeWrapper": "quantize_wrapper", "QuantizeWrapperV2": "quantize_wrapper_v2"}
QUANTIZED_NOTE = (
    "quantization wrappers were taken off, the weights are kept; 'quantize: {scheme: int8, "
    "qat: true}' puts them on again"
)


def scopes() -> Iterator[AbstractContextManager[Any]]:
    """In which Keras knows the toolkit's layers. The toolkit takes two seconds to import, so it is
    imported where a pipeline is about to need it anyway."""
    import tensorflow_model_optimization as tfmot

    yield tfmot.sparsity.keras.prune_scope()
    yield tfmot.quantization.keras.quantize_scope()


def unwrapped(model: tf.keras.Model) -> tuple[tf.keras.Model, list[str]]:
    """The model without them, with its weights and its zeros, and what is to be said about that."""
    kinds = {type(layer).__name__ for layer in model._flatten_layers()}
    notes = []
    if _PRUNED in kinds:
        import tensorflow_model_optimization as tfmot

        for layer in model._flatten_layers():
            if type(layer).__name__ == _PRUNED:
                for kernel, mask, _ in layer.pruning_vars:
                    kernel.assign(kernel * mask)
        model = tfmot.sparsity.keras.strip_pruning(model)
        notes.append("pruning wrappers were taken off; the zeros are kept")
    if kinds & {*_QUANTIZED, _QUANTIZER}:
        twin = _float(model)
        for new, old in zip(twin.layers, model.layers, strict=True):
            theirs = {_short(weight): weight for weight in old.weights}
            new.set_weights([theirs[_short(weight)].numpy() for weight in new.weights])
        model = twin
        notes.append(QUANTIZED_NOTE)
    return model, notes


def is_quantized(path: Path) -> bool:
    """Whether a .keras file has the toolkit's quantization wrappers, which Keras cannot load."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return b"QuantizeWrapper" in archive.read("config.json")


def read_quantized(path: Path, own: Mapping[str, Any]) -> tf.keras.Model:
    """The model in such a file without its wrappers: Keras counts the ranges of the first twice."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = BytesIO(archive.read("model.weights.h5"))
    with tf.keras.utils.custom_object_scope(dict(own)):
        model = tf.keras.utils.deserialize_keras_object(config)
    twin = _float(model)
    counts: dict[str, int] = {}
    with h5py.File(weights, "r") as file:
        groups = file.get("layers") or file["_layer_checkpoint_dependencies"]
        for layer, wrapper in zip(twin.layers, model.layers, strict=True):
            name = _GROUPS.get(type(wrapper).__name__, "")
            number = counts.get(name, 0)
            counts[name] = number + 1
            if layer.weights:
                group = groups[f"{name}_{number}" if number else name]
                layer.set_weights(_inner_weights(group, len(layer.weights)))
    return twin


def _inner_weights(group: Any, count: int) -> list[Any]:
    """What a layer within a wrapper has: its kernel is among the wrapper's own, the first."""
    inner = group["layer"]["vars"] if "layer" in group else {}
    found = [inner[str(i)][()] for i in range(len(inner))]
    if len(found) < count:
        found.insert(0, group["vars"]["0"][()])
    return found


def _float(model: tf.keras.Model) -> tf.keras.Model:
    """The same layers without fake-quantization, their weights made anew."""

    def inner(layer: Any) -> Any:
        kind = type(layer).__name__
        if kind == _QUANTIZER:
            return tf.keras.layers.Activation("linear", name=layer.name)
        if kind not in _QUANTIZED:
            return layer.__class__.from_config(layer.get_config())
        config = layer.layer.get_config()
        # Its activation was replaced by one that knows ranges; the plain one is in it.
        activation = getattr(layer.layer, "activation", None)
        plain = getattr(activation, "activation", None)
        if plain is not None:
            config["activation"] = tf.keras.activations.serialize(plain)
        return layer.layer.__class__.from_config(config)

    return tf.keras.models.clone_model(model, clone_function=inner)


def _short(weight: Any) -> str:
    return str(weight.name).split("/")[-1]
