"""Kernels of a Keras model: the weights that can be made sparse, and reasons to leave some dense.

A kernel is every trainable weight of two or more dimensions, in layers of every kind: in layers
within layers (recurrent cells, attention's projections), in nested models, and in users' own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.elementwise import is_elementwise
from edgesparse.methods.network.layer_channels import is_user_defined
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.step import BLOCKS, Pattern, matches

MIN_INPUTS = 5
"""The first convolution of an image network sees 1 to 4 channels: few weights, much accuracy."""
MAX_LEFT = 0.05
"""Largest share of all weights in kernels that are left dense for being small; the others can
compensate for these."""
_ATTRIBUTES = (
    "kernel", "recurrent_kernel", "pointwise_kernel", "depthwise_kernel", "embeddings", "bias",
)  # fmt: skip
DEPTHWISE = "depthwise: few weights, and each channel has its own"
DEPTHWISE_BLOCKS = "depthwise: no runtime skips blocks of its zeros"
FEW = "few weights, much accuracy"
NO_KERNEL = "a scale, shift or slope, not a kernel"


@dataclass(frozen=True)
class Kernel:
    """A weight. `layer` is the name of the model's layer that it is in, `owner` the Keras layer
    that holds it, which may be a part of that; `reason` is why it stays dense unless the pipeline
    names it, or empty."""

    name: str
    layer: str
    owner: Any
    variable: Any
    reason: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def takes_blocks(self) -> bool:
        """True for [..., inputs, outputs], over which blocks can lie: matrices and convolutions
        without groups."""
        if isinstance(self.owner, tf.keras.layers.Embedding) or self.is_transposed:
            return False
        if len(self.shape) == 2:
            return True
        convolution = len(getattr(self.owner, "kernel_size", ())) == len(self.shape) - 2
        alone = getattr(self.owner, "groups", 1) == 1 and not self.is_depthwise
        return convolution and alone

    @property
    def is_transposed(self) -> bool:
        """True for a transposed convolution's [..., outputs, inputs]."""
        return "Transpose" in type(self.owner).__name__ and len(self.shape) > 2

    @property
    def is_depthwise(self) -> bool:
        """True for a depthwise convolution's [..., channels, multiplier]."""
        return getattr(self.owner, "depthwise_kernel", None) is self.variable

    def by_output(self, values: np.ndarray) -> np.ndarray:
        """Return values of the kernel's shape as [..., inputs, outputs]: a transposed convolution's
        outputs come before its inputs, and others have several dimensions of outputs."""
        if self.is_transposed:
            return np.swapaxes(values, -1, -2)
        return values.reshape(*values.shape[: -self._output_rank], -1)

    def as_kernel(self, values: np.ndarray) -> np.ndarray:
        """Return values [..., inputs, outputs] in the kernel's shape."""
        return np.swapaxes(values, -1, -2) if self.is_transposed else values.reshape(self.shape)

    @property
    def _output_rank(self) -> int:
        """The number of last dimensions that are outputs."""
        if self.is_depthwise:
            return 2
        # Attention's projections.
        operands, _, result = getattr(self.owner, "equation", "").partition("->")
        letters = operands.partition(",")[2]
        rank = next((i for i, x in enumerate(reversed(letters)) if x not in result), 1)
        return max(1, min(rank, len(self.shape) - 1))

    @property
    def names(self) -> tuple[str, str]:
        """Names that globs can match."""
        return self.name, self.layer


def kernels(model: tf.keras.Model) -> dict[str, Kernel]:
    """Return every kernel by name: its layer's, with the weight's where a layer has several."""
    by_name: dict[str, Kernel] = {}
    seen: set[int] = set()
    for prefix, layer in _layers(model):
        for kernel in _layer_kernels(layer):
            if id(kernel.variable) in seen:  # A layer that is used twice.
                continue
            seen.add(id(kernel.variable))
            name = kernel.name if kernel.name not in by_name else f"{prefix}{kernel.name}"
            by_name[name] = Kernel(name, kernel.layer, kernel.owner, kernel.variable, kernel.reason)
    return _without_large(by_name)


def _without_large(by_name: dict[str, Kernel]) -> dict[str, Kernel]:
    """Clear the reason of small kernels beyond MAX_LEFT of the model's weights."""
    left = MAX_LEFT * sum(kernel.size for kernel in by_name.values())
    for kernel in sorted(by_name.values(), key=lambda kernel: kernel.size):
        if kernel.reason.endswith(FEW) or kernel.reason == DEPTHWISE:
            left -= kernel.size
            if left < 0:
                by_name[kernel.name] = replace(kernel, reason="")
    return by_name


def prunable(model: tf.keras.Model) -> dict[str, Kernel]:
    """Return the kernels that are pruned unless the pipeline excludes them."""
    return {name: kernel for name, kernel in kernels(model).items() if not kernel.reason}


EXCLUDED = "excluded in the pipeline"


def reason_dense(kernel: Kernel, pattern: str) -> str:
    """Return why a step with a pattern leaves a kernel dense unless the pipeline names it."""
    in_blocks = pattern in BLOCKS and kernel.is_depthwise
    return kernel.reason or (DEPTHWISE_BLOCKS if in_blocks else "")


def choose(
    model: tf.keras.Model, exclude: Sequence[str], pattern: Pattern = "unstructured"
) -> tuple[dict[str, Kernel], dict[str, tuple[int, str]]]:
    """Return the kernels that a step with a pattern changes; and size and reason of each other, by
    name.

    Raises:
        UsageError: a glob matches nothing, or no kernel is left.
    """
    every = kernels(model)
    names = {name for kernel in every.values() for name in kernel.names}
    for glob in exclude:
        if not matches(glob, names):
            raise UsageError(f"{glob!r} matches no layer with a kernel{did_you_mean(glob, names)}")
    reason_by_name = {
        name: EXCLUDED if matches(exclude, kernel.names) else reason_dense(kernel, pattern)
        for name, kernel in every.items()
    }
    left = {name: (every[name].size, reason) for name, reason in reason_by_name.items() if reason}
    chosen = {name: kernel for name, kernel in every.items() if name not in left}
    if not chosen:
        reasons = "; ".join(f"{name}: {why}" for name, (_, why) in list(left.items())[:4])
        raise UsageError(f"no layer can be made sparse{f' ({reasons})' if reasons else ''}")
    return chosen, left


def unfreeze(model: tf.keras.Model, chosen: Iterable[Kernel]) -> tuple[str, ...]:
    """Make all layers trainable, since other weights compensate for zeros; return a note if any
    was frozen."""
    frozen = sorted({kernel.layer for kernel in chosen if not kernel.owner.trainable})
    if not frozen:
        return ()
    for layer in model._flatten_layers(recursive=True, include_self=True):
        layer.trainable = True
    return (f"frozen layers that were trained during pruning: {len(frozen)}",)


def _layers(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix, layer


def _layer_kernels(layer: Any) -> list[Kernel]:
    """Return the kernels of a layer and of the layers within it."""
    return list(_within(layer, layer, [layer.name]))


def _within(layer: Any, owner: Any, path: list[str]) -> Iterator[Kernel]:
    weights = [w for w in _direct_weights(owner) if len(w.shape) >= 2 and w.dtype.is_floating]
    named = {_attribute(owner, weight): weight for weight in weights}
    named.pop("bias", None)  # A GRU's has two dimensions, and one of attention's projections.
    for attribute, weight in named.items():
        name = "/".join([*path, attribute] if len(named) > 1 else path)
        yield Kernel(name, layer.name, owner, weight, _reason(layer, owner, weight, attribute))
    parts = list(owner._flatten_layers(recursive=False, include_self=False))
    parts = [part for part in parts if part.weights]
    for part in parts:
        # A recurrent layer's cell, or a wrapper's layer, is not part of the name.
        yield from _within(layer, part, [*path, part.name] if len(parts) > 1 else path)


def _direct_weights(owner: Any) -> list[Any]:
    """Return the layer's weights, frozen or not, without those of layers within it."""
    weights = [
        *getattr(owner, "_trainable_weights", ()),
        *getattr(owner, "_non_trainable_weights", ()),
    ]
    # Running statistics are not parameters; a frozen layer's weights are.
    return [weight for weight in weights if weight.trainable]


def _attribute(owner: Any, weight: Any) -> str:
    for name in _ATTRIBUTES:
        if getattr(owner, name, None) is weight:
            return name
    return str(weight.name).split("/")[-1].split(":")[0]


def _reason(layer: Any, owner: Any, weight: Any, attribute: str) -> str:
    layers = tf.keras.layers
    if attribute == "depthwise_kernel":
        return DEPTHWISE
    if isinstance(owner, layers.PReLU | layers.BatchNormalization | layers.LayerNormalization):
        return NO_KERNEL
    if is_user_defined(owner) and is_elementwise(layer, weight):
        return NO_KERNEL
    convolution = attribute == "kernel" and len(weight.shape) >= 3 and hasattr(owner, "kernel_size")
    transposed = "Transpose" in type(owner).__name__
    if convolution and getattr(owner, "groups", 1) == 1:
        inputs = weight.shape[-1] if transposed else weight.shape[-2]
        if inputs < MIN_INPUTS:
            return f"sees only {inputs} channels: {FEW}"
    return ""
