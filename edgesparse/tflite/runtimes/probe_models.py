"""A small model for every cell of the compatibility table, built as a pipeline builds models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from edgesparse.spec.pipeline import Scheme as PipelineScheme
from edgesparse.tflite.format.encode import Encoding, encode
from edgesparse.tflite.format.flatbuffer import Constant
from edgesparse.tflite.format.half_precision import allow_half_precision
from edgesparse.tflite.format.sparse_layout import Form, Layout, along, blocks
from edgesparse.tflite.runtimes.compatibility import OPS, Cell, Op, cells
from edgesparse.tflite.runtimes.storage import is_candidate, scheme_of

if TYPE_CHECKING:
    import tensorflow as tf

TOLERANCE = 0.1
"""Largest error of an output, as a share of the outputs' range: rounding stays far below, a misread
weight is far above."""
STORED_SHARE = 1 / 16
"""Share of each weight that is stored, in blocks of 16, so that every form stores the same."""
_BLOCK = 16
PATH_KEPT = 0.1


@dataclass(frozen=True)
class CellModel:
    """A cell's model with inputs `x` and Keras' outputs `y`, float32 [n, ...]."""

    cell: Cell
    content: bytes
    x: np.ndarray
    y: np.ndarray


def cell_models(width: int = 256, ops: Sequence[Op] = OPS) -> tuple[CellModel, ...]:
    """Build a model with a single layer for each cell of some operators; `width` is that of fully
    connected layers."""
    models = []
    for op in ops:
        model = _keras(op, width)
        x = np.random.default_rng(2).normal(size=(4, *model.inputs[0].shape[1:]))
        x = x.astype(np.float32)
        y = model(x, training=False).numpy()
        converted: dict[str, bytes] = {}
        for cell in cells():
            if cell.op == op:
                content = _stored(_converted(model, cell, x, converted), cell)
                models.append(CellModel(cell, content, x, y))
    return tuple(models)


def network_models() -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Build a network for XNNPACK's sparse path with 90 % zeros in its 1x1 convolutions.

    Returns:
        Its files "dense", "sparse" and "half" (precision); inputs, and Keras' outputs, both float32
        [n, ...].
    """
    from edgesparse.models.mobilenet_v1 import mobilenet_v1
    from edgesparse.tflite.convert import convert

    model = mobilenet_v1([64, 64, 3], 10, alpha=0.5)
    random = np.random.default_rng(3)
    for layer in model.layers:
        if getattr(layer, "kernel_size", None) == (1, 1):
            layer.kernel.assign(layer.kernel * (random.random(layer.kernel.shape) < PATH_KEPT))
    x = random.random((2, 64, 64, 3), dtype=np.float32)
    dense = convert(model, "f32", x)

    def choose(constant: Constant) -> Encoding | None:
        pointwise = constant.op == "CONV_2D" and constant.values.shape[1:3] == (1, 1)
        return Encoding(along(4, 3), densify=True) if pointwise else None

    files = {"dense": dense, "sparse": encode(dense, choose), "half": allow_half_precision(dense)}
    return files, x, model(x, training=False).numpy()


def _keras(op: Op, width: int) -> tf.keras.Model:
    import tensorflow as tf

    layers = tf.keras.layers
    shape, layer = {
        "CONV_2D": ((8, 8, 64), layers.Conv2D(64, 3, padding="same")),
        "DEPTHWISE_CONV_2D": ((8, 8, 128), layers.DepthwiseConv2D(3, padding="same")),
        "FULLY_CONNECTED": ((width,), layers.Dense(width)),
    }[op]
    inputs = tf.keras.Input(shape)
    model = tf.keras.Model(inputs, layer(inputs))
    random = np.random.default_rng(1)
    for weight in model.weights:
        values = random.normal(size=weight.shape).astype(np.float32)
        if len(weight.shape) > 1:
            values *= _mask(op, tuple(weight.shape), random)
        weight.assign(values)
    return model


def _mask(op: Op, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return a mask of blocks of 16 along the last dimension of TFLite's weights."""
    if op == "DEPTHWISE_CONV_2D":
        mask = random.random((*shape[:2], shape[2] // _BLOCK, 1)) < 1 / 2
        return np.repeat(mask, _BLOCK, axis=2)
    mask = random.random((*shape[:-2], shape[-2] // _BLOCK, shape[-1])) < STORED_SHARE
    return np.repeat(mask, _BLOCK, axis=-2)


def _converted(
    model: tf.keras.Model, cell: Cell, x: np.ndarray, converted: dict[str, bytes]
) -> bytes:
    from edgesparse.tflite.convert import convert

    if cell.scheme not in converted:
        scheme = cast(PipelineScheme, cell.scheme.removesuffix("-per-channel"))
        one_scale = cell.scheme == scheme
        converted[cell.scheme] = convert(model, scheme, x, one_scale=one_scale)
    return converted[cell.scheme]


def _stored(content: bytes, cell: Cell) -> bytes:
    layouts: dict[Form, Layout] = {
        "densify": along(4, 3) if cell.op != "FULLY_CONNECTED" else along(2, 1),
        "random": along(2, 1),
        "block-1x4": blocks(2, 4),
        "block-1x16": blocks(2, 16),
    }

    def choose(constant: Constant) -> Encoding | None:
        if cell.form == "dense" or not is_candidate(constant):
            return None
        assert scheme_of(constant) == cell.scheme, "converted to another scheme"
        return Encoding(layouts[cell.form], cell.form == "densify")

    return encode(content, choose)
